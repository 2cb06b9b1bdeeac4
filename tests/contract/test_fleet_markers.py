"""Several clusters: what a marker is, and what becomes of one whose maker has died or came too late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.fleet.adapter import UnitCluster
from sandboxes.fleet.markers import Marker, marker_name
from sandboxes.fleet.protocol import Made
from sandboxes.models.requests import CreateRequest
from sandboxes.models.responses import SandboxResponse
from tests.audit import CLUSTERS
from tests.contract.fleet import NS, StartReplica, answered, fleet_of, id_of, listed, markers, pods
from tests.contract.service import URL, create
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=3600.0, clusters_answer=10.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


async def test_a_marker_is_a_config_map_with_the_labels_of_the_id_and_the_cluster(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    sandbox_id = id_of("east")
    await create(service, sandbox_id, cluster="west")
    marker = clusters["east"].get("ConfigMap", NS, f"sandbox-{sandbox_id}-elsewhere")
    assert marker is not None
    labels = {kube.ID_LABEL: sandbox_id, kube.MANAGED_BY_LABEL: kube.MANAGED_BY, kube.KEEP_LABEL: "true"}
    assert marker["metadata"]["labels"] == labels
    data = marker["data"]
    assert (data["cluster"], data["state"], data["uid"]) == ("west", "placed", pods(clusters["west"])[sandbox_id])


@pytest.mark.parametrize("state", ["pending", "placed"])
async def test_a_pod_at_home_stays_beside_a_pending_marker_and_gives_way_to_a_placed_one(
    clusters: dict[str, Cluster], start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    one, two = await start_replica(), await start_replica()
    sandbox_id = id_of("east")
    east, others = fleet_of(one).clusters["east"], fleet_of(two).clusters
    make: Callable[..., Awaitable[tuple[Made, SandboxResponse]]] = east.make
    made_at_home: list[str] = []

    async def make_late(request: CreateRequest, replaces: str, *, may_move: bool) -> tuple[Made, SandboxResponse]:
        """Make the Pod once the marker of another replica is there, which has not seen the Pod."""
        marker = await others["east"].create_marker(Marker(sandbox_id, "west", "pending", "another"))
        if state == "placed":
            await others["east"].update_marker(replace(marker, state="placed"))
        made = await make(request, replaces, may_move=may_move)
        made_at_home.append(made[0].uid)
        return made

    monkeypatch.setattr(east, "make", make_late)
    made = await create(one, sandbox_id)
    assert len(made_at_home) == 1
    if state == "pending":
        assert (made["cluster"], markers(clusters["east"])) == ("east", set())
        assert (pods(clusters["east"]), pods(clusters["west"])) == ({sandbox_id: made_at_home[0]}, {})
    else:
        assert (made["cluster"], markers(clusters["east"])) == ("west", {marker_name(sandbox_id)})
        assert (pods(clusters["east"]), set(pods(clusters["west"]))) == ({}, {sandbox_id})


@pytest.mark.slow
async def test_whoever_finds_the_pod_at_home_after_its_marker_was_made_follows_the_pod(
    clusters: dict[str, Cluster], start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start_replica(), await start_replica()
    sandbox_id = id_of("east")
    east = fleet_of(two).clusters["east"]
    create_marker = east.create_marker

    async def create_late(marker: Marker) -> Marker:
        assert (await create(one, sandbox_id))["cluster"] == "east"
        return await create_marker(marker)

    monkeypatch.setattr(east, "create_marker", create_late)
    assert (await create(two, sandbox_id, cluster="west"))["cluster"] == "east"
    assert (set(pods(clusters["east"])), pods(clusters["west"])) == ({sandbox_id}, {})
    assert markers(clusters["east"]) == set()


@pytest.mark.slow
async def test_a_pending_marker_whose_maker_died_says_nothing_and_is_removed(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    ids = [id_of("east"), id_of("east", 1)]
    east: UnitCluster = fleet_of(service).clusters["east"]
    for sandbox_id in ids:
        await east.create_marker(Marker(sandbox_id, "west", "pending", "dead"))
    assert (await answered(service, ids[0]))[0] == 404
    assert (await create(service, ids[0]))["cluster"] == "east"
    assert markers(clusters["east"]) == {marker_name(ids[1])}
    view = east.unit.service.cluster.directory_view
    assert view is not None
    await until(lambda: view.get(marker_name(ids[0])) is None and view.get(marker_name(ids[1])) is not None)
    await fleet_of(service).keeper.clean_up()
    assert markers(clusters["east"]) == {marker_name(ids[1])}  # its maker may be at work
    await fleet_of(service).keeper.clean_up()
    assert markers(clusters["east"]) == set()
    assert set(pods(clusters["east"])) == {ids[0]}


@pytest.mark.slow
@pytest.mark.deadlines(delete=3.0, read=3.0)
async def test_a_marker_stays_while_its_cluster_can_not_prove_that_the_sandbox_is_gone(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    sandbox_id = id_of("east")
    await create(service, sandbox_id, cluster="west")
    clusters["west"].faults.refuse()
    for _ in range(2):
        await fleet_of(service).keeper.clean_up()
    assert markers(clusters["east"]) == {marker_name(sandbox_id)}
    assert (await service.delete(f"{URL}/{sandbox_id}")).status == 503
    clusters["west"].faults.clear()

    async def is_back() -> bool:
        return (await answered(service, sandbox_id))[0] == 200

    await until(is_back)


@pytest.mark.slow
async def test_a_filter_by_a_cluster_that_is_not_in_the_file_finds_nothing(start_replica: StartReplica) -> None:
    service = await start_replica()
    await create(service, id_of("east"))
    assert await listed(service, "?cluster=north") == {"sandboxes": {}, "count": 0}


@pytest.mark.slow
async def test_a_returned_pod_is_marked_so_that_a_create_of_the_same_instant_leaves_it(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = await start_replica(), await start_replica()
    for number, placed in enumerate(("east", "west")):
        sandbox_id = id_of("east", number)
        returned = await create(one, sandbox_id, cluster=placed)
        assert returned["cluster"] == placed
        (pod,) = (pod for pod in clusters[placed].objects("Pod", NS) if kube.sandbox_id_of(pod) == sandbox_id)
        marks = kube.get_annotations(pod)
        assert marks[kube.RETURNED_ANNOTATION] == marks[kube.APPLIED_AT_ANNOTATION]
        # Another replica, whose live view does not show it, applies it again and then fails.
        late = fleet_of(two).clusters[placed]
        made, _ = await late.make(CreateRequest(sandbox_id=sandbox_id), "")
        assert not made.is_new
        assert not await late.withdraw(sandbox_id, made.uid)
        assert pods(clusters[placed])[sandbox_id] == made.uid
    east = fleet_of(one).clusters["east"]
    assert not await east.confirm_pod(id_of("east"), "another-uid", is_new=False)
    assert (await one.delete(f"{URL}/{id_of('east')}")).status == 200
    assert not await east.confirm_pod(id_of("east"), pods(clusters["east"]).get(id_of("east"), "gone"), is_new=False)
