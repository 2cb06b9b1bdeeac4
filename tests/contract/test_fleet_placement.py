"""Several clusters behind one API: sandboxes that find no node, and ids like the names of markers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes.fleet.markers import marker_name
from tests.audit import CLUSTERS
from tests.conftest import ROOT
from tests.contract.fleet import NAMES, NS, StartReplica, answered, fleet_of, id_of, markers, pods, write
from tests.contract.service import URL, create

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=0.0, unscheduled=0.3),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


@pytest.fixture
def no_node(tmp_path: Path) -> dict[str, Any]:
    """Return the field of an entry on whose cluster no node can take a sandbox."""
    folder = tmp_path / "templates" / "default"
    shutil.copytree(ROOT / "manifests" / "sandbox", folder)
    pod = yaml.safe_load((folder / "pod.yaml").read_text())
    pod["spec"]["nodeSelector"] = {"disk": "of-gold"}
    (folder / "pod.yaml").write_text(yaml.safe_dump(pod))
    return {"templates_dir": str(folder.parent)}


async def test_a_sandbox_that_finds_no_node_is_made_on_another_cluster(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path, no_node: dict[str, Any]
) -> None:
    write(path, clusters, east=no_node)
    one, two = await start_replica(), await start_replica()
    sandbox_id = id_of("east")
    made = await create(one, sandbox_id, wait_seconds=20)
    assert (made["cluster"], made["status"]) == ("west", "Running")
    # Not even terminating.
    assert clusters["east"].objects("Pod", NS) == []
    assert [obj["metadata"]["name"] for obj in clusters["east"].objects("Service", NS)] == []
    assert markers(clusters["east"]) == {marker_name(sandbox_id)}
    for service in (one, two):
        assert (await answered(service, sandbox_id))[1]["cluster"] == "west"
        assert (await create(service, sandbox_id, wait_seconds=20))["cluster"] == "west"
    assert set(pods(clusters["west"])) == {sandbox_id}


@pytest.mark.parametrize("fields", [{}, {"wait_seconds": 0.2}, {"wait_seconds": 2, "cluster": "east"}])
async def test_a_sandbox_stays_without_a_node_if_its_create_does_not_wait_or_has_no_choice(
    clusters: dict[str, Cluster],
    start_replica: StartReplica,
    path: Path,
    no_node: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    write(path, clusters, east=no_node)
    service = await start_replica()
    sandbox_id = id_of("east")
    assert (await create(service, sandbox_id, **fields))["cluster"] == "east"
    first = pods(clusters["east"])
    # Its caller has it, so that a later create that waits does not move it.
    again = await create(service, sandbox_id, wait_seconds=2)
    assert (again["cluster"], again["status"], again["reason"]) == ("east", "Pending", "Unschedulable")
    assert pods(clusters["east"]) == first == {sandbox_id: first[sandbox_id]}
    assert pods(clusters["west"]) == {}


async def test_a_sandbox_that_finds_no_node_anywhere_is_answered_as_with_one_cluster(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path, no_node: dict[str, Any]
) -> None:
    write(path, clusters, **dict.fromkeys(NAMES, no_node))
    service = await start_replica()
    sandbox_id = id_of("east")
    made = await create(service, sandbox_id, wait_seconds=2)
    assert (made["status"], made["reason"], made["ready"]) == ("Pending", "Unschedulable", False)
    assert [len(one.objects("Pod", NS)) for one in clusters.values()] == [0, 1]
    assert (await answered(service, sandbox_id))[1]["cluster"] == made["cluster"] == "west"


async def test_a_sandbox_whose_id_ends_like_the_name_of_a_marker_is_one_of_its_own(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    # Its marker has the name of the other's Pod; ConfigMaps and Pods have names of their own.
    marked, like_it = id_of("east"), f"{id_of('east')}-elsewhere"
    await create(service, marked, cluster="west")
    for name in NAMES:
        await create(service, like_it, cluster=name)
    assert markers(clusters["east"]) >= {f"sandbox-{like_it}"}
    on = (await answered(service, like_it))[1]["cluster"]
    assert (await answered(service, marked))[1]["cluster"] == "west"
    assert (await service.delete(f"{URL}/{like_it}")).status == 200
    await fleet_of(service).keeper.clean_up()
    assert (await answered(service, like_it))[0] == 404
    assert like_it not in pods(clusters[on])
    assert (await answered(service, marked))[1]["cluster"] == "west"
    await create(service, like_it, cluster="east")
    assert (await service.delete(f"{URL}/{marked}")).status == 200
    await fleet_of(service).keeper.clean_up()
    assert (await answered(service, marked))[0] == 404
    assert (await answered(service, like_it))[0] == 200
