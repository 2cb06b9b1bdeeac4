"""Faults of the API server, of callers and of the cluster's operator under load: no sandbox is lost or orphaned."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import kmock
import pytest
import yaml

from devcluster import Cluster
from tests.contract.chaos import SETTINGS, Service, calling, impatient
from tests.contract.faults import makes_an_object, recorded_refusal
from tests.contract.ledger import NAMESPACE, Ledger, callers, more
from tests.contract.service import StartProvisioner, until
from tests.kubectl import Kubectl
from tests.marker import MARKER

pytestmark = [pytest.mark.starts_in_full, pytest.mark.slow]


# The API server


async def test_nothing_is_lost_when_the_api_server_restarts(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session):
        for forget in (False, True):
            await until(more(lambda: service.made, 20))
            await cluster.faults.restart(0.5, forget=forget)
        await until(more(lambda: service.made, 20))
    await service.assert_nothing_lost()


@impatient
async def test_nothing_is_lost_when_the_api_server_hangs(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session):
        await until(more(lambda: service.made, 20))
        cluster.faults.hang()
        await until(more(lambda: service.refused, 10))
        cluster.faults.clear()
        await until(more(lambda: service.made, 20))
    await service.assert_nothing_lost()


@impatient
async def test_nothing_is_lost_when_the_api_server_is_slow(service: Service, cluster: Cluster) -> None:
    async with callers(service.ledger, service.session, number=10):
        await until(more(lambda: service.made, 10))
        cluster.faults.slow(5)
        await until(more(lambda: service.refused, 5))
        cluster.faults.clear()
        await until(more(lambda: service.made, 10))
    await service.assert_nothing_lost()


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
    await service.assert_nothing_lost()


async def test_nothing_is_lost_when_connections_are_cut_during_batches(service: Service, cluster: Cluster) -> None:
    """The server does the request and its response is cut: of a Pod, a Service or a delete, at the start or later."""
    choice = random.Random(5)  # noqa: S311 - no secret
    async with callers(service.ledger, service.session):
        for _ in range(15):
            await until(more(lambda: service.made, 3))
            verb, resource = choice.choice([("patch", "pods"), ("patch", "services"), ("delete", "pods"), ("get", "")])
            cluster.faults.cut(choice.choice([0, 100]), verb=verb, resource=resource, times=choice.randint(1, 4))
        await until(more(lambda: service.made, 20))
    cluster.faults.clear()
    await service.assert_nothing_lost()


WATCH_FAULTS: dict[str, Callable[[Cluster], None]] = {
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
@pytest.mark.parametrize("fault", WATCH_FAULTS)
async def test_nothing_is_lost_or_misreported_when_watches_fail(
    start_provisioner: StartProvisioner, cluster: Cluster, fault: str
) -> None:
    provisioner = await start_provisioner(**SETTINGS, LIVE_VIEW_MAX_AGE="4")
    async with calling(provisioner, Ledger(cluster)) as service:
        async with callers(service.ledger, service.session):
            for _ in range(3):
                await until(lambda: cluster.open_watches() == 2)
                await until(more(lambda: service.made, 10))
                WATCH_FAULTS[fault](cluster)
            await until(more(lambda: service.made, 10))
        await service.assert_nothing_lost()
        await until(lambda: provisioner.view.is_fresh)


# Callers


async def test_nothing_is_lost_with_five_hundred_concurrent_creates(service: Service) -> None:
    ids = [f"c{number}" for number in range(500)]
    statuses = await asyncio.gather(*(service.ledger.create(service.session, one) for one in ids))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100
    await service.assert_nothing_lost()


async def test_nothing_is_lost_when_callers_disconnect(service: Service) -> None:
    choice = random.Random(11)  # noqa: S311 - no secret

    async def hang_up(number: int) -> None:
        task = asyncio.create_task(service.ledger.create(service.session, f"h{number}"))
        with suppress(TimeoutError):
            await asyncio.wait_for(task, choice.random() / 2)

    async with callers(service.ledger, service.session, number=10):
        for count in range(5):
            await asyncio.gather(*(hang_up(20 * count + number) for number in range(20)))
    await service.assert_nothing_lost()


# The operator


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
    await service.assert_nothing_lost()


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

        with service.ledger.others_delete_everything():
            deleted = await kubectl("delete", "namespace", NAMESPACE, "--wait=false")
            assert deleted.rc == 0, deleted.stderr
            await until(is_new)
        await until(more(lambda: service.made, 20))
    await service.assert_nothing_lost()


async def test_creates_beyond_a_quota_reached_in_a_batch_are_429_and_leave_nothing(
    service: Service, cluster: Cluster
) -> None:
    """Some creates succeed and the others are 429; creates succeed again when the quota has room."""
    is_used_up = asyncio.Event()

    def is_refused(request: kmock.Request) -> bool:
        return is_used_up.is_set() and makes_an_object(cluster, request)

    cluster.kmock["PATCH", kmock.resource("v1/pods"), is_refused] << recorded_refusal("apply-quota-exceeded")

    async def create(number: int) -> int:
        return await service.ledger.create(service.session, f"q{number}")

    creates = [asyncio.create_task(create(number)) for number in range(40)]
    await until(lambda: len(cluster.objects("Pod", NAMESPACE)) >= 10)
    is_used_up.set()
    statuses = await asyncio.gather(*creates)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 10
    assert len(cluster.objects("Pod", NAMESPACE)) == statuses.count(200)
    is_used_up.clear()
    assert {await create(number) for number in range(40)} == {200}
    await service.assert_nothing_lost()
