"""Several clusters: a sandbox that two of them have is named, and both stay until a caller deletes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.fleet.markers import REPLACES_ANNOTATION, marker_name
from sandboxes.spec.templates import Template
from tests.audit import CLUSTERS
from tests.contract.fleet import NS, StartReplica, answered, fleet_of, id_of, listed, markers, pods, write
from tests.contract.service import URL, Provisioner, create
from tests.contract.views import create_manually
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=0.2, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


async def doubled(service: Provisioner) -> list[dict[str, Any]]:
    response = await service.get("/api/clusters")
    assert response.status == 200
    found: list[dict[str, Any]] = (await response.json()).get("doubled", [])
    return found


async def becomes_doubled(service: Provisioner, sandbox_id: str, answers: str | None) -> None:
    expected = [{"sandbox_id": sandbox_id, "clusters": ["east", "west"], "answers": answers}]

    async def is_so() -> bool:
        return await doubled(service) == expected

    await until(is_so)


async def clean_up(service: Provisioner) -> None:
    """Run two rounds of all that cleans up."""
    fleet = fleet_of(service)
    for _ in range(2):
        await fleet.keeper.clean_up()
        for one in fleet.clusters.values():
            await one.unit.service.reaper.round(dry_run=False)


def left(clusters: dict[str, Cluster]) -> list[int]:
    """Return the number of Pods and Services of each cluster that are not terminating."""
    return [
        sum("deletionTimestamp" not in obj["metadata"] for kind in ("Pod", "Service") for obj in one.objects(kind, NS))
        for one in clusters.values()
    ]


@pytest.mark.parametrize("placed", ["east", "west"])
async def test_a_sandbox_that_is_also_applied_by_hand_is_named_until_a_caller_deletes_it(
    clusters: dict[str, Cluster],
    start_replica: StartReplica,
    template: Template,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    placed: str,
) -> None:
    service = await start_replica()
    sandbox_id = id_of("east")
    await create(service, sandbox_id, cluster=placed)
    assert await doubled(service) == []
    (other,) = clusters.keys() - {placed}
    await create_manually(Kubectl(clusters[other].kubeconfig, tmp_path / "home"), template, sandbox_id)
    await becomes_doubled(service, sandbox_id, placed)
    assert (await answered(service, sandbox_id))[1]["cluster"] == placed
    assert (await listed(service))["sandboxes"] == {sandbox_id: placed}
    await clean_up(service)
    await becomes_doubled(service, sandbox_id, placed)
    assert caplog.text.count(f"sandbox {sandbox_id} is on several clusters: east, west") == 1
    assert left(clusters) == [2, 2]
    assert (await service.delete(f"{URL}/{sandbox_id}")).status == 200
    assert left(clusters) == [0, 0]
    assert (await answered(service, sandbox_id))[0] == 404
    assert await doubled(service) == []


@pytest.mark.slow
@pytest.mark.deadlines(delete=3.0, read=3.0)
async def test_a_delete_that_cannot_reach_one_of_two_pods_is_503_and_names_its_cluster(
    clusters: dict[str, Cluster], start_replica: StartReplica, template: Template, tmp_path: Path
) -> None:
    service = await start_replica()
    sandbox_id = id_of("east")
    await create(service, sandbox_id)
    await create_manually(Kubectl(clusters["west"].kubeconfig, tmp_path / "home"), template, sandbox_id)
    await becomes_doubled(service, sandbox_id, "east")
    clusters["west"].faults.refuse()
    for _ in range(2):
        deleted = await service.delete(f"{URL}/{sandbox_id}")
        assert (deleted.status, "'west'" in (await deleted.json())["detail"]) == (503, True)
    clusters["west"].faults.clear()

    async def is_deleted() -> bool:
        return (await service.delete(f"{URL}/{sandbox_id}")).status == 200

    await until(is_deleted)
    assert left(clusters) == [0, 0]


@pytest.mark.slow
async def test_a_pod_that_was_replaced_unknown_is_named_beside_its_successor(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    sandbox_id = id_of("west")
    await create(await start_replica(), sandbox_id)
    (old_uid,) = pods(clusters["west"]).values()
    clusters["west"].faults.refuse()
    write(path, clusters, west={"lost": True})
    service = await start_replica()  # it has never seen the Pod
    await until(lambda: fleet_of(service).directory.homes.newest.names == {"east"})
    assert (await create(service, sandbox_id, on_cluster_loss="recreate"))["cluster"] == "east"
    (new,) = clusters["east"].objects("Pod", NS)
    assert kube.get_annotations(new)[REPLACES_ANNOTATION] == "west/unknown"
    clusters["west"].faults.clear()
    write(path, clusters)
    await until(lambda: marker_name(sandbox_id) in markers(clusters["west"]))
    await becomes_doubled(service, sandbox_id, "east")
    await clean_up(service)
    assert pods(clusters["west"]) == {sandbox_id: old_uid}
    assert (await answered(service, sandbox_id))[1]["cluster"] == "east"
    assert (await service.delete(f"{URL}/{sandbox_id}")).status == 200
    assert left(clusters) == [0, 0]


async def test_without_a_list_of_clusters_nothing_is_said_to_be_doubled(provisioner: Provisioner) -> None:
    await create(provisioner, "a")
    assert set(await (await provisioner.get("/api/clusters")).json()) == {"clusters", "count"}
