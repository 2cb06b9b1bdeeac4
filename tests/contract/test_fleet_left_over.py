"""Pods that creates have made and not returned: real kubectl, two devclusters."""

from __future__ import annotations

import pytest

from devcluster import Cluster
from sandboxes.models.requests import CreateRequest
from tests.audit import CLUSTERS
from tests.contract.fleet import StartReplica, fleet_of, id_of, pods
from tests.contract.service import create

pytestmark = [pytest.mark.role(CLUSTERS), pytest.mark.usefixtures("without_reaper")]


async def test_a_pod_that_a_dead_create_has_left_beside_the_sandbox_is_deleted(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    fleet, sandbox_id = fleet_of(service), id_of("east")
    assert (await create(service, sandbox_id, cluster="west"))["cluster"] == "west"
    # As a create at home that ends before it reads the marker.
    await fleet.clusters["east"].make(CreateRequest(sandbox_id=sandbox_id), "")
    there = pods(clusters["west"])
    await fleet.keeper.clean_up()
    assert set(pods(clusters["east"])) == {sandbox_id}, "its maker may be at work"
    await fleet.keeper.clean_up()
    assert pods(clusters["east"]) == {}
    assert pods(clusters["west"]) == there


async def test_a_pod_where_the_directory_says_is_kept_though_its_create_has_died(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    fleet, sandbox_id = fleet_of(service), id_of("east")
    made, _ = await fleet.clusters["east"].make(CreateRequest(sandbox_id=sandbox_id), "")
    for _ in range(3):
        await fleet.keeper.clean_up()
    assert pods(clusters["east"]) == {sandbox_id: made.uid}


async def test_a_dry_run_deletes_no_pod_that_a_dead_create_has_left(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica(REAPER_DRY_RUN="true")
    fleet, sandbox_id = fleet_of(service), id_of("east")
    await create(service, sandbox_id, cluster="west")
    made, _ = await fleet.clusters["east"].make(CreateRequest(sandbox_id=sandbox_id), "")
    for _ in range(3):
        await fleet.keeper.clean_up()
    assert pods(clusters["east"]) == {sandbox_id: made.uid}


@pytest.mark.parametrize("how", ["returned", "found"])
async def test_a_returned_pod_is_kept_also_beside_another(
    clusters: dict[str, Cluster], start_replica: StartReplica, how: str
) -> None:
    """As after a deletion of the directory's notes by hand."""
    service = await start_replica()
    fleet, sandbox_id = fleet_of(service), id_of("east")
    west = fleet.clusters["west"]
    made, _ = await west.make(CreateRequest(sandbox_id=sandbox_id), "")
    assert await west.confirm_pod(sandbox_id, made.uid, is_new=how == "returned")
    for _ in range(3):
        await fleet.keeper.clean_up()
    assert pods(clusters["west"]) == {sandbox_id: made.uid}


async def test_a_create_withdraws_a_pod_that_another_has_found_and_not_returned(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = [fleet_of(await start_replica()).clusters["east"] for _ in range(2)]
    made, _ = await one.make(CreateRequest(sandbox_id="a"), "")
    found, _ = await two.make(CreateRequest(sandbox_id="a"), "")
    assert (found.is_new, found.is_confirmed, found.uid) == (False, False, made.uid)
    assert await one.withdraw("a", made.uid)
    assert not await two.confirm_pod("a", made.uid, is_new=False)
    assert pods(clusters["east"]) == {}


async def test_a_create_whose_own_mark_had_no_answer_withdraws_its_pod(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = [fleet_of(await start_replica()).clusters["east"] for _ in range(2)]
    made, _ = await one.make(CreateRequest(sandbox_id="a"), "")
    assert await one.confirm_pod("a", made.uid, is_new=True)  # and its answer is lost
    found, _ = await two.make(CreateRequest(sandbox_id="a"), "")
    assert not found.is_confirmed
    assert await one.withdraw("a", made.uid)
    assert pods(clusters["east"]) == {}
