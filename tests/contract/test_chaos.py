"""Some tens of callers at work, one fault after another, and then the count of what was lost."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import kmock
import pytest
import yaml

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.faults import recorded_refusal
from tests.contract.ledger import NAMESPACE, NOTHING, Ledger, callers, more
from tests.contract.service import KUBECTL, Provisioner, StartProvisioner, until
from tests.kubectl import Kubectl
from tests.marker import MARKER

pytestmark = [pytest.mark.starts_in_full, pytest.mark.slow]

SETTINGS = {"REAPER_INTERVAL": "0", "REAPER_GRACE": "1"}


@dataclass
class Service:
    """A service, the sessions of its callers, and what they were told."""

    provisioner: Provisioner
    session: aiohttp.ClientSession
    ledger: Ledger

    @property
    def made(self) -> int:
        """How many creates were answered with 200."""
        return self.ledger.answered("create")

    @property
    def refused(self) -> int:
        """How many creates were answered with an error."""
        return self.ledger.refused()

    async def works_again(self) -> None:
        """Wait until a create, a get and a delete succeed."""

        async def all_succeed() -> bool:
            made = await self.ledger.create(self.session, "afterwards")
            read = await self.ledger.get(self.session, "afterwards")
            gone = await self.ledger.delete(self.session, "afterwards")
            return (made, read, gone) == (200, 200, 200)

        await until(all_succeed)

    async def stands(self) -> None:
        """The end of each test: it works on, nothing is lost, nothing is orphaned."""
        await self.works_again()
        toll = await self.ledger.toll(self.provisioner.client.app[SANDBOX_SERVICE].reaper)
        assert toll == NOTHING, self.ledger.statuses


@asynccontextmanager
async def calling(provisioner: Provisioner, ledger: Ledger) -> AsyncIterator[Service]:
    base = str(provisioner.client.make_url("/"))
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Service(provisioner, session, ledger)


@pytest.fixture
async def service(start_provisioner: StartProvisioner, cluster: Cluster) -> AsyncIterator[Service]:
    async with calling(await start_provisioner(**SETTINGS), Ledger(cluster)) as running:
        yield running


# A fifth of the service's own limits of time.
impatient = pytest.mark.deadlines(
    create=4.2, delete=2.4, read=1.6, undo=1.0, settle_pause=0.4, batch=1.6, batch_limit=2.4, batch_patience=1.6
)


# The API server


async def test_nothing_is_lost_when_the_api_server_restarts(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session):
        for forget in (False, True):
            await until(more(lambda: service.made, 20))
            await cluster.faults.restart(0.5, forget=forget)
        await until(more(lambda: service.made, 20))
    await service.stands()


@impatient
async def test_nothing_is_lost_when_the_api_server_hangs(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 20))
        cluster.faults.hang()
        await until(more(lambda: service.refused, 10))
        cluster.faults.clear()
        await until(more(lambda: service.made, 20))
    await service.stands()


@impatient
async def test_nothing_is_lost_when_the_api_server_is_slow(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session, number=10):
        await until(more(lambda: service.made, 10))
        cluster.faults.slow(5)
        await until(more(lambda: service.refused, 5))
        cluster.faults.clear()
        await until(more(lambda: service.made, 10))
    await service.stands()


@impatient
@pytest.mark.parametrize("code", [429, 500, 503])
async def test_nothing_is_lost_when_the_api_server_returns_errors_for_a_while(
    service: Service, cluster: Cluster, code: int
) -> None:
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 20))
        cluster.faults.answer(code)
        await until(more(lambda: service.refused, 10))
        cluster.faults.clear()
        await until(more(lambda: service.made, 20))
    await service.stands()


async def test_nothing_is_lost_when_connections_are_cut_during_batches(service: Service, cluster: Cluster) -> None:
    """What was asked is done, and the answer never comes: of a Pod, of a Service, of a delete, at any place."""
    choice = random.Random(5)  # noqa: S311 - no secret
    async with callers(service.ledger, service.session):
        for _ in range(15):
            await until(more(lambda: service.made, 3))
            verb, resource = choice.choice([("patch", "pods"), ("patch", "services"), ("delete", "pods"), ("get", "")])
            cluster.faults.cut(choice.choice([0, 100]), verb=verb, resource=resource, times=choice.randint(1, 4))
        await until(more(lambda: service.made, 20))
    cluster.faults.clear()
    await service.stands()


TROUBLE_OF_WATCHES: dict[str, Callable[[Cluster], None]] = {
    "cut": lambda cluster: cluster.faults.cut_watches(),
    "ended": lambda cluster: cluster.end_watches(),
    "silent": lambda cluster: cluster.faults.silence_watches(),
    "410": lambda cluster: cluster.faults.expire_watches(),
    "500": lambda cluster: cluster.faults.fail_watches(500),
    "answered 429": lambda cluster: answer_next_watches(cluster, 429),
    "answered 500": lambda cluster: answer_next_watches(cluster, 500),
}


def answer_next_watches(cluster: Cluster, code: int) -> None:
    cluster.faults.answer(code, verb="watch", times=4)
    cluster.end_watches()


@pytest.mark.deadlines(watch_pauses=(0.05, 0.1), watch_silence=0.5)
@pytest.mark.parametrize("trouble", TROUBLE_OF_WATCHES)
async def test_nothing_is_lost_or_misreported_when_watches_fail(
    start_provisioner: StartProvisioner, cluster: Cluster, trouble: str
) -> None:
    provisioner = await start_provisioner(**SETTINGS, LIVE_VIEW_MAX_AGE="4")
    async with calling(provisioner, Ledger(cluster)) as service:
        async with callers(service.ledger, service.session):
            for _ in range(3):
                await until(lambda: cluster.open_watches() == 2)
                await until(more(lambda: service.made, 10))
                TROUBLE_OF_WATCHES[trouble](cluster)
            await until(more(lambda: service.made, 10))
        await service.stands()
        await until(lambda: provisioner.view.is_fresh)


# kubectl


def kubectls_of(pid: int) -> list[int]:
    """Return the kubectl processes that this process has started."""
    found = []
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for one in child.read_text().split():
            with suppress(OSError):  # it has ended meanwhile
                if "kubectl" in Path(f"/proc/{one}/comm").read_text():
                    found.append(int(one))
    return found


async def test_nothing_is_lost_when_kubectl_processes_are_killed(service: Service) -> None:
    choice = random.Random(7)  # noqa: S311 - no secret
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 10))
        for _ in range(40):
            await until(lambda: kubectls_of(os.getpid()))
            with suppress(ProcessLookupError, IndexError):  # it ended, or all of them did
                os.kill(choice.choice(kubectls_of(os.getpid())), signal.SIGKILL)
            await asyncio.sleep(choice.random() / 10)
        await until(more(lambda: service.made, 20))
    await service.stands()


# Every second call: nothing is done and half an object is printed; nothing is printed; all is done and lies are told.
GARBLED = """#!/bin/sh
test -e {switch} || exec {kubectl} "$@"
case $(($$ % 6)) in
    0) cat >/dev/null; echo '{{"kind": "List", "items": [{{"kind": "Po'; exit 0;;
    1) cat >/dev/null; exit 0;;
    2) {kubectl} "$@" >/dev/null; echo 'panic: no such thing'; exit 0;;
    *) exec {kubectl} "$@";;
esac
"""


async def test_nothing_is_lost_when_kubectl_prints_garbage(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    switch, kubectl = tmp_path / "garbled", tmp_path / "kubectl"
    kubectl.write_text(GARBLED.format(switch=switch, kubectl=KUBECTL))
    kubectl.chmod(0o755)
    provisioner = await start_provisioner(KUBECTL=str(kubectl), **SETTINGS)
    async with calling(provisioner, Ledger(cluster)) as service:
        async with callers(service.ledger, service.session, number=10):
            await until(more(lambda: service.made, 10))
            switch.touch()
            await until(more(lambda: service.refused, 10))
            await until(more(lambda: service.made, 10))
            switch.unlink()
            await until(more(lambda: service.made, 10))
        await service.stands()


async def test_nothing_is_lost_when_kubectls_cache_is_not_writable(service: Service, tmp_path: Path) -> None:
    """A file in the place of the folder: as root, too, nothing can be read or written there, as on a full disk."""
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 10))
        (cache,) = tmp_path.glob("*/cache")
        await asyncio.to_thread(shutil.rmtree, cache, ignore_errors=True)
        with suppress(IsADirectoryError):  # a kubectl was faster
            cache.write_text("")
        await until(more(lambda: service.made, 20))
    await service.stands()


# A kubectl of which each process finds the folder of its cache on a disk of its own, which is full (ENOSPC); or may
# write no byte to any file (EFBIG), which any machine lets a test have.
FULL_DISK = """#!/bin/sh
exec unshare --user --map-root-user --mount sh -c '
    cache=${{1#--cache-dir=}}
    mkdir -p "$cache" && mount -t tmpfs -o size=4k full "$cache" || exit 70
    head -c 8192 /dev/zero >"$cache/full" 2>/dev/null
    exec {kubectl} "$@"
' sh "$@"
"""
NO_LARGER_FILES = """#!/bin/sh
ulimit -f 0
exec {kubectl} "$@"
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [(FULL_DISK, "no space left on device"), (NO_LARGER_FILES, "file too large")],
    ids=["ENOSPC", "EFBIG"],
)
async def test_no_call_fails_when_kubectls_cache_is_on_a_full_disk(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, script: str, said: str
) -> None:
    binary = tmp_path / "kubectl"
    binary.touch(mode=0o755)
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home", binary)
    binary.write_text(script.format(kubectl="true"))
    without_kubectl = await kubectl(f"--cache-dir={tmp_path}/tried")
    if without_kubectl.rc != 0:
        pytest.skip(f"nobody may mount a disk of his own on this machine: {without_kubectl.stderr.strip()}")
    binary.write_text(script.format(kubectl=KUBECTL))
    tried = await kubectl(f"--cache-dir={tmp_path}/tried", "get", "pods", "-v=4")
    assert tried.rc == 0
    assert f": {said}" in tried.stderr

    async with calling(await start_provisioner(KUBECTL=str(binary), **SETTINGS), Ledger(cluster)) as service:
        async with callers(service.ledger, service.session, number=5):
            await until(more(lambda: service.made, 20))
            await until(more(lambda: service.ledger.answered("delete"), 5))
        assert [service.ledger.refused(verb) for verb in ("create", "get", "delete")] == [0, 0, 0]
        await service.stands()
        (cache,) = tmp_path.glob("*/cache")
        assert [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 0] == []


# Callers


async def test_nothing_is_lost_with_five_hundred_concurrent_creates(service: Service) -> None:
    ids = [f"c{number}" for number in range(500)]
    statuses = await asyncio.gather(*(service.ledger.create(service.session, one) for one in ids))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100
    await service.stands()


async def test_nothing_is_lost_when_callers_disconnect(service: Service) -> None:
    choice = random.Random(11)  # noqa: S311 - no secret

    async def hang_up(number: int) -> None:
        task = asyncio.create_task(service.ledger.create(service.session, f"h{number}"))
        with suppress(TimeoutError):
            await asyncio.wait_for(task, choice.random() / 2)

    async with callers(service.ledger, service.session, number=10):
        for count in range(5):
            await asyncio.gather(*(hang_up(20 * count + number) for number in range(20)))
    await service.stands()


# What the operator does


async def test_nothing_is_lost_when_credentials_are_rotated(service: Service, cluster: Cluster) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    async with callers(service.ledger, service.session):
        for number in range(2):
            await until(more(lambda: service.made, 20))
            token = f"{MARKER}-{number}"
            cluster.kmock._token = token  # noqa: SLF001
            refused = service.refused
            await until(lambda before=refused: service.refused > before)  # type: ignore[misc]
            config["users"][0]["user"]["token"] = token
            cluster.kubeconfig.write_text(yaml.safe_dump(config))
        await until(more(lambda: service.made, 20))
    await service.stands()


async def test_nothing_is_lost_when_the_namespace_is_deleted_and_recreated(
    service: Service, cluster: Cluster, kubectl: Kubectl
) -> None:
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 20))
        namespace = cluster.get("Namespace", "", NAMESPACE)
        assert namespace is not None

        def is_new() -> bool:
            found = cluster.get("Namespace", "", NAMESPACE)
            return found is not None and found["metadata"]["uid"] != namespace["metadata"]["uid"]

        with service.ledger.all_being_deleted():
            deleted = await kubectl("delete", "namespace", NAMESPACE, "--wait=false")
            assert deleted.rc == 0, deleted.stderr
            await until(is_new)
        await until(more(lambda: service.made, 20))
    await service.stands()


async def test_creates_beyond_a_quota_reached_in_a_batch_are_429_and_leave_nothing(
    service: Service, cluster: Cluster
) -> None:
    """Some are whole, the others are refused, each for its own reason; and more find room when there is some."""
    is_used_up = asyncio.Event()

    async def create(number: int) -> int:
        return await service.ledger.create(service.session, f"q{number}")

    creates = [asyncio.create_task(create(number)) for number in range(40)]
    await until(lambda: len(cluster.objects("Pod", NAMESPACE)) >= 10)
    is_used_up.set()
    refusal = recorded_refusal("apply-quota-exceeded")
    cluster.kmock["PATCH", kmock.resource("v1/pods")] << (lambda: refusal if is_used_up.is_set() else StopIteration)
    statuses = await asyncio.gather(*creates)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 10
    assert len(cluster.objects("Pod", NAMESPACE)) == statuses.count(200)
    is_used_up.clear()
    assert {await create(number) for number in range(40)} == {200}
    await service.stands()
