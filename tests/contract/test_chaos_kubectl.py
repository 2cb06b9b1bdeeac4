"""Faults of kubectl and of its cache under load: no sandbox is lost or orphaned."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.contract.chaos import SETTINGS, Service, calling
from tests.contract.ledger import Ledger, callers, more
from tests.contract.service import KUBECTL, StartProvisioner, until
from tests.kubectl import Kubectl

pytestmark = [pytest.mark.starts_in_full, pytest.mark.slow]


def kubectls_of(pid: int) -> list[int]:
    """Return the pids of the running kubectl processes of this process."""
    found = []
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for one in child.read_text().split():
            with suppress(OSError):  # it has exited meanwhile
                if "kubectl" in Path(f"/proc/{one}/comm").read_text():
                    found.append(int(one))
    return found


async def test_nothing_is_lost_when_kubectl_processes_are_killed(service: Service) -> None:
    choice = random.Random(7)  # noqa: S311 - no secret
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 10))
        for _ in range(40):
            await until(lambda: kubectls_of(os.getpid()))
            with suppress(ProcessLookupError, IndexError):  # it exited, or all of them did
                os.kill(choice.choice(kubectls_of(os.getpid())), signal.SIGKILL)
            await asyncio.sleep(choice.random() / 10)
        await until(more(lambda: service.made, 20))
    await service.assert_nothing_lost()


# Every second call fails: no request and half an object on stdout; no output at all; or the request and a false output.
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
        await service.assert_nothing_lost()


async def test_nothing_is_lost_when_kubectls_cache_is_not_writable(service: Service, tmp_path: Path) -> None:
    """A file replaces the folder: not even root can read or write in it, as on a full disk."""
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 10))
        (cache,) = tmp_path.glob("*/cache")
        await asyncio.to_thread(shutil.rmtree, cache, ignore_errors=True)
        with suppress(IsADirectoryError):  # a kubectl has made the folder again
            cache.write_text("")
        await until(more(lambda: service.made, 20))
    await service.assert_nothing_lost()


# A kubectl whose cache is on a full disk of its own (ENOSPC, which needs the right to mount), or whose processes may
# write no byte to any file (EFBIG, on any machine).
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
    ("script", "error"),
    [(FULL_DISK, "no space left on device"), (NO_LARGER_FILES, "file too large")],
    ids=["ENOSPC", "EFBIG"],
)
async def test_no_call_fails_when_kubectls_cache_is_on_a_full_disk(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, script: str, error: str
) -> None:
    binary = tmp_path / "kubectl"
    binary.touch(mode=0o755)
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home", binary)
    binary.write_text(script.format(kubectl="true"))
    without_kubectl = await kubectl(f"--cache-dir={tmp_path}/tried")
    if without_kubectl.rc != 0:
        pytest.skip(f"mounting a disk is not permitted on this machine: {without_kubectl.stderr.strip()}")
    binary.write_text(script.format(kubectl=KUBECTL))
    tried = await kubectl(f"--cache-dir={tmp_path}/tried", "get", "pods", "-v=4")
    assert tried.rc == 0
    assert f": {error}" in tried.stderr

    async with calling(await start_provisioner(KUBECTL=str(binary), **SETTINGS), Ledger(cluster)) as service:
        async with callers(service.ledger, service.session, number=5):
            await until(more(lambda: service.made, 20))
            await until(more(lambda: service.ledger.answered("delete"), 5))
        assert [service.ledger.refused(verb) for verb in ("create", "get", "delete")] == [0, 0, 0]
        await service.assert_nothing_lost()
        (cache,) = tmp_path.glob("*/cache")
        assert [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 0] == []
