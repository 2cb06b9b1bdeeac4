"""Rollback: a failed create leaves nothing, unless another create has used the sandbox since."""

from __future__ import annotations

import asyncio

import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.faults import refuse_next
from tests.contract.lives import POD, SERVICE, nothing_left, uid_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl

# A full start, so that kubectl has cached the API's resources: reads hang in these tests.
pytestmark = [pytest.mark.usefixtures("without_reaper"), pytest.mark.starts_in_full]


@pytest.mark.deadlines(undo=0.3, settle_pause=0.1)
async def test_objects_of_a_rejected_create_are_deleted_when_the_cluster_recovers(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    cluster.faults.answer(503, verb="delete")
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert response.status == 429
    assert uid_of(cluster) is not None
    assert (await provisioner.get(f"{URL}/a")).status == 404
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))
    await create(provisioner)


async def fail_an_applied_create(provisioner: Provisioner, cluster: Cluster) -> None:
    """Let a create fail for its caller although the cluster applied all of it."""
    provisioner.set_deadlines(create=5.0)  # long enough for both patches on a busy machine
    await until(lambda: provisioner.view.is_fresh)
    cluster.faults.hang(verb="get")
    cluster.faults.cut(0, verb="patch", resource="services")
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert response.status in {503, 504}
    await until(lambda: None not in provisioner.view.sandbox("a"))
    provisioner.set_deadlines(create=100.0)


@pytest.mark.deadlines(undo=0.3, settle_pause=0.1)
async def test_a_failed_create_that_was_applied_is_deleted(provisioner: Provisioner, cluster: Cluster) -> None:
    await fail_an_applied_create(provisioner, cluster)
    assert uid_of(cluster) is not None
    assert cluster.get(*SERVICE) is not None
    assert (await provisioner.get(URL)).status == 200
    assert await (await provisioner.get(URL)).json() == {"sandboxes": [], "count": 0}
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))


@pytest.mark.slow
@pytest.mark.deadlines(undo=0.3, settle_pause=0.1)
@pytest.mark.parametrize("by", ["the same process", "another process"])
async def test_a_failed_create_that_is_repeated_meanwhile_is_kept(
    provisioner: Provisioner,
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    by: str,
) -> None:
    other = await start_provisioner()
    await fail_an_applied_create(provisioner, cluster)
    before = uid_of(cluster)
    await until(lambda: other.view.is_fresh and None not in other.view.sandbox("a"))
    await create(provisioner if by == "the same process" else other)
    cluster.faults.clear()
    creation = provisioner.client.app[SANDBOX_SERVICE]

    async def shown() -> bool:
        return (await provisioner.get(f"{URL}/a")).status == 200

    await until(shown)
    await creation.finish()
    assert uid_of(cluster) == before
    assert cluster.get(*SERVICE) is not None


@pytest.mark.slow
@pytest.mark.deadlines(undo=0.3, settle_pause=60)
async def test_a_create_succeeds_when_the_rollback_of_an_earlier_one_finds_nothing(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    """The first create is still being rolled back when the namespace and its objects are deleted."""
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    cluster.faults.answer(503, verb="delete", resource="pods")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
    await until(lambda: any(request.method.value == "DELETE" for request in cluster.kmock.requests))
    await kubectl("delete", "namespace", "deer-flow", "--wait=false")
    await until(lambda: nothing_left(cluster))
    await create(provisioner)
    assert (await provisioner.get(f"{URL}/a")).status == 200
    cluster.faults.clear()


@pytest.mark.deadlines(others_service=0.0)
async def test_a_rollback_keeps_a_sandbox_that_another_process_completed(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    maker, other = [await start_provisioner() for _ in range(2)]
    await until(lambda: maker.view.is_fresh and other.view.is_fresh)
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    # The other process confirms the Pod, and its Service waits while the first one reads the objects.
    cluster.faults.slow(1.0, verb="get")
    rejected = asyncio.create_task(maker.post(URL, json={"sandbox_id": "a", "labels": {"team": "red"}}))
    await until(lambda: cluster.get(*POD) is not None)
    await create(other)
    assert (await rejected).status in {200, 429}
    cluster.faults.clear()
    await until(lambda: is_settled(maker))
    assert cluster.get(*POD) is not None
    assert cluster.get(*SERVICE) is not None


def is_settled(provisioner: Provisioner) -> bool:
    return not provisioner.client.app[SANDBOX_SERVICE].is_settling
