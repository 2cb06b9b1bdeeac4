"""Several clusters behind one API: one away, hanging, lost or joining, and creates at once, with a real kubectl."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.errors import AlreadyThere, ObjectsChanged, PreconditionFailed
from sandboxes.fleet.markers import REPLACES_ANNOTATION, Marker, marker_name
from sandboxes.models.requests import CreateRequest
from tests.audit import CLUSTERS
from tests.contract.fleet import NAMES, NS, StartReplica, answered, fleet_of, id_of, listed, markers, pods, write
from tests.contract.service import URL, Provisioner, create
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=0.2, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


@pytest.mark.deadlines(clusters_answer=0.5)
async def test_a_stopped_cluster_is_named_for_its_sandboxes_and_the_others_go_on(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica(LIVE_VIEW_MAX_AGE="2")
    here, there, far = id_of("east"), id_of("west"), id_of("east", 1)
    for sandbox_id in (here, there):
        await create(service, sandbox_id)
    await create(service, far, cluster="west")
    clusters["west"].faults.refuse()

    async def is_incomplete() -> bool:
        return (await listed(service)).get("incomplete") == ["west"]

    await until(is_incomplete)
    for _ in range(3):
        for sandbox_id in (there, far, id_of("west", 1)):
            status, answer = await answered(service, sandbox_id)
            assert (status, answer["detail"].startswith("Cluster 'west' can't be reached")) == (503, True)
            deleted = await service.delete(f"{URL}/{sandbox_id}")
            assert (deleted.status, "'west'" in (await deleted.json())["detail"]) == (503, True)
        refused = await service.post(URL, json={"sandbox_id": id_of("west", 1), "cluster": "east"})
        assert refused.status == 503
        assert (await answered(service, here))[0] == 200
        answer = await listed(service)
        assert (answer["incomplete"], answer["sandboxes"][here]) == (["west"], "east")
    assert fleet_of(service).clusters["west"].breaker.is_open
    assert (await service.get("/readyz")).status == 200
    assert (await create(service, id_of("east", 2)))["cluster"] == "east"
    clusters["west"].faults.clear()

    async def is_back() -> bool:
        return (await answered(service, there))[0] == (await answered(service, far))[0] == 200

    await until(is_back)
    await until(lambda: fleet_of(service).clusters["west"].unit.service.cluster.is_fresh)
    answer = await listed(service)
    assert "incomplete" not in answer
    assert answer["sandboxes"] == {here: "east", there: "west", far: "west", id_of("east", 2): "east"}


async def test_creates_of_one_id_with_different_wishes_at_once_make_one_sandbox(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    replicas = [await start_replica(), await start_replica()]
    ids = [id_of(name, number) for name in NAMES for number in range(3)]
    wishes: list[dict[str, Any]] = [{}, {"cluster": "east"}, {"cluster": "west"}]

    async def ask(service: Provisioner, sandbox_id: str, wish: dict[str, Any]) -> tuple[str, str]:
        for _ in range(30):
            response = await service.post(URL, json={"sandbox_id": sandbox_id, **wish})
            answer = await response.json()
            if response.status == 200:
                return sandbox_id, answer["cluster"]
            assert response.status == 503, answer
        raise AssertionError(answer)

    answers = await asyncio.gather(
        *(ask(service, sandbox_id, wish) for sandbox_id in ids for service in replicas for wish in wishes)
    )
    on = {sandbox_id: {name for one, name in answers if one == sandbox_id} for sandbox_id in ids}
    assert all(len(names) == 1 for names in on.values()), on
    # Each is where all answers say, and only there.
    there = {name: {one for one in ids if on[one] == {name}} for name in NAMES}
    assert {name: set(pods(one)) for name, one in clusters.items()} == there
    for service in replicas:
        for sandbox_id in ids:
            assert {(await answered(service, sandbox_id))[1]["cluster"]} == on[sandbox_id]
            assert (await service.delete(f"{URL}/{sandbox_id}")).status == 200 if service is replicas[1] else True
    assert [pods(one) for one in clusters.values()] == [{}, {}]
    for _ in range(2):
        await fleet_of(replicas[0]).keeper.clean_up()
    assert [markers(one) for one in clusters.values()] == [set(), set()]


async def test_a_pod_made_by_hand_on_a_second_cluster_changes_no_answer(
    clusters: dict[str, Cluster], start_replica: StartReplica, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_replica()
    sandbox_id = id_of("east")
    await create(service, sandbox_id)
    await fleet_of(service).clusters["west"].unit.service.create(CreateRequest(sandbox_id=sandbox_id))
    assert [set(pods(one)) for one in clusters.values()] == [{sandbox_id}, {sandbox_id}]
    assert (await listed(service))["sandboxes"] == {sandbox_id: "east"}
    assert f"sandbox {sandbox_id} is on several clusters: east, west" in caplog.text
    assert (await answered(service, sandbox_id))[1]["cluster"] == "east"
    await fleet_of(service).keeper.clean_up()
    assert [set(pods(one)) for one in clusters.values()] == [{sandbox_id}, {sandbox_id}]


async def test_the_events_of_all_clusters_are_one_stream(start_replica: StartReplica) -> None:
    service = await start_replica()
    await until(lambda: all(one.unit.service.cluster.is_fresh for one in fleet_of(service).clusters.values()))
    async with service.client.get("/api/events") as stream:
        assert stream.status == 200
        events: list[tuple[int, str, dict[str, Any]]] = []

        async def read_until(count: int) -> None:
            lines: dict[str, str] = {}
            while sum(kind == "created" for _, kind, _ in events) < count:
                key, _, value = (await stream.content.readline()).decode().rstrip("\n").partition(": ")
                lines[key] = value
                if key == "data":
                    events.append((int(lines["id"]), lines["event"], json.loads(value)))

        await asyncio.wait_for(read_until(0), 30)
        for name in NAMES:
            await create(service, id_of(name))
        await asyncio.wait_for(read_until(2), 30)
    assert (events[0][1], events[0][2]) == ("state", {"sandboxes": [], "count": 0})
    assert {one["cluster"] for _, kind, one in events if kind == "created"} == set(NAMES)
    assert [number for number, _, _ in events] == sorted({number for number, _, _ in events})


async def test_a_sandbox_on_a_lost_cluster_is_made_anew_only_on_request(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    service = await start_replica()
    sandbox_id = id_of("west")
    await create(service, sandbox_id)
    (lost_uid,) = pods(clusters["west"]).values()
    clusters["west"].faults.refuse()
    write(path, clusters, west={"lost": True})
    await until(lambda: fleet_of(service).directory.homes.is_lost("west"))
    await until(lambda: fleet_of(service).directory.homes.newest.names == {"east"})
    assert (await create(service, id_of("east")))["cluster"] == "east"
    assert (await answered(service, sandbox_id))[0] == 503
    refused = await service.post(URL, json={"sandbox_id": sandbox_id})
    assert (refused.status, "'west' is lost" in (await refused.json())["detail"]) == (503, True)
    assert (await create(service, sandbox_id, on_cluster_loss="recreate"))["cluster"] == "east"
    assert (await answered(service, sandbox_id))[0] == 200
    (new,) = (pod for pod in clusters["east"].objects("Pod", NS) if kube.sandbox_id_of(pod) == sandbox_id)
    assert kube.get_annotations(new)[REPLACES_ANNOTATION] == f"west/{lost_uid}"
    assert (await listed(service))["incomplete"] == ["west"]
    clusters["west"].faults.clear()
    write(path, clusters)

    async def is_replaced() -> bool:
        await fleet_of(service).keeper.clean_up()
        return pods(clusters["west"]) == {}

    await until(is_replaced)
    assert sandbox_id in pods(clusters["east"])


async def test_a_replica_that_starts_while_a_cluster_is_away_serves_the_other(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one = await start_replica()
    for name in NAMES:
        await create(one, id_of(name))
    clusters["west"].faults.refuse()
    two = await start_replica()
    assert (await answered(two, id_of("east")))[0] == 200
    assert (await create(two, id_of("east", 1)))["cluster"] == "east"
    assert (await answered(two, id_of("west")))[0] == 503
    clusters["west"].faults.clear()

    async def is_back() -> bool:
        return (await answered(two, id_of("west")))[0] == 200

    await until(is_back)


async def test_when_a_cluster_joins_each_sandbox_is_found_where_it_is(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    write(path, {"east": clusters["east"]})
    service = await start_replica()
    ids = [id_of("west"), id_of("east")]
    for sandbox_id in ids:
        assert (await create(service, sandbox_id))["cluster"] == "east"
    write(path, clusters)

    async def is_complete() -> bool:
        return (await service.post(URL, json={"sandbox_id": id_of("west", 1)})).status == 200

    # Before the new file is adopted, a create is still answered by the old one.
    await until(lambda: fleet_of(service).directory.homes.newest.names == set(clusters))
    await until(is_complete)
    for sandbox_id in ids:
        assert (await answered(service, sandbox_id))[1]["cluster"] == "east"
        assert (await create(service, sandbox_id))["cluster"] == "east"
    assert marker_name(id_of("west")) in markers(clusters["west"])
    await until(lambda: all(one.unit.service.cluster.is_fresh for one in fleet_of(service).clusters.values()))
    assert (await listed(service))["sandboxes"].keys() >= set(ids)


@pytest.mark.deadlines(clusters_answer=0.5, read=2.0)
async def test_a_cluster_that_hangs_delays_no_request_for_the_others(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica(LIVE_VIEW_MAX_AGE="2")
    for name in NAMES:
        await create(service, id_of(name))
    clusters["west"].faults.hang(open_watches=True)
    waiting = [asyncio.create_task(service.get(f"{URL}/{id_of('west', number)}")) for number in range(1, 6)]
    await until(lambda: not fleet_of(service).clusters["west"].unit.service.cluster.is_fresh)
    assert (await answered(service, id_of("east")))[0] == 200
    assert (await create(service, id_of("east", 1)))["cluster"] == "east"
    answer = await listed(service)
    assert answer["incomplete"] == ["west"]
    # What was last known of it is listed, too.
    assert answer["sandboxes"] == {id_of("east"): "east", id_of("east", 1): "east", id_of("west"): "west"}
    assert {(await one).status for one in waiting} == {503}
    assert fleet_of(service).clusters["west"].breaker.is_open
    assert (await service.get("/readyz")).status == 200


async def test_a_pod_is_withdrawn_by_its_maker_unless_another_create_has_returned_it(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = await start_replica(), await start_replica()
    east = fleet_of(one).clusters["east"]
    for finder in (east, fleet_of(two).clusters["east"]):
        made, _ = await east.make(CreateRequest(sandbox_id="a"), "")
        found, _ = await finder.make(CreateRequest(sandbox_id="a"), "")
        assert (made.is_new, found.is_new, found.uid) == (True, False, made.uid)
        assert await finder.confirm_pod("a", found.uid, is_new=False)
        assert await east.confirm_pod("a", made.uid, is_new=True)
        assert not await east.withdraw("a", made.uid)
        assert pods(clusters["east"]) == {"a": made.uid}
        await east.delete_pod("a", "another-uid")
        assert pods(clusters["east"]) == {"a": made.uid}
        await east.delete_pod("a", made.uid)
        assert pods(clusters["east"]) == {}
    made, _ = await east.make(CreateRequest(sandbox_id="b"), "")
    assert await east.withdraw("b", made.uid)
    assert pods(clusters["east"]) == {}
    assert await east.withdraw("b", made.uid)


async def test_a_marker_that_another_replica_has_changed_is_neither_replaced_nor_deleted(
    start_replica: StartReplica,
) -> None:
    east = fleet_of(await start_replica()).clusters["east"]
    marker = await east.create_marker(Marker("a", "west", "pending", "t"))
    with pytest.raises(AlreadyThere):
        await east.create_marker(Marker("a", "east", "pending", "u"))
    placed = await east.update_marker(replace(marker, state="placed", uid="1"))
    assert (await east.look("a")).marker == placed
    for change in (east.update_marker, east.delete_marker):
        with pytest.raises(PreconditionFailed):
            await change(marker)
    assert await east.markers() == [placed]
    plain = await east.update_marker(replace(placed, uid=""))
    assert (await east.look("a")).marker == replace(placed, uid="", version=plain.version)
    await east.delete_marker(plain)
    for gone in (east.update_marker, east.delete_marker):
        with pytest.raises(ObjectsChanged):
            await gone(plain)
    assert await east.markers() == []


async def test_an_object_that_only_has_the_name_of_a_marker_is_never_believed(
    clusters: dict[str, Cluster], start_replica: StartReplica, kubectl: Kubectl
) -> None:
    service = await start_replica()
    name = marker_name(id_of("east"))
    metadata = {"name": name, "namespace": NS}
    await kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"cluster": "west"}})
    assert markers(clusters["east"]) == {name}
    response = await service.get(f"{URL}/{id_of('east')}")
    assert response.status == 502
    assert "has the name of a marker" in (await response.json())["detail"]
    assert pods(clusters["west"]) == {}


async def test_when_an_empty_cluster_leaves_the_other_takes_its_ids(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    service = await start_replica()
    await create(service, id_of("east"))
    write(path, {"east": clusters["east"]})
    await until(lambda: set(fleet_of(service).clusters) == {"east"})
    assert fleet_of(service).directory.homes.newest.names == {"east"}
    for sandbox_id in (id_of("east"), id_of("west")):
        assert (await create(service, sandbox_id))["cluster"] == "east"
    assert set(pods(clusters["east"])) == {id_of("east"), id_of("west")}
