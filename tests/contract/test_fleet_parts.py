"""Several clusters behind one API: each has kubectl processes, a namespace, an access and a reaper of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.audit import CLUSTERS
from tests.contract.fleet import NAMES, StartReplica, fleet_of, id_of, pods, write
from tests.contract.service import URL, create
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=0.0),
    pytest.mark.role(CLUSTERS),
]


@pytest.mark.usefixtures("without_reaper")
@pytest.mark.deadlines(read=3.0)
async def test_the_processes_of_a_cluster_that_hangs_are_its_own(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica(KUBECTL_MAX_PROCESSES="1", LIVE_VIEW="false")
    clusters["west"].faults.hang()
    waiting = [asyncio.create_task(service.get(f"{URL}/{id_of('west', number)}")) for number in range(3)]
    await until(lambda: all(not one.done() for one in waiting))
    assert (await create(service, id_of("east")))["cluster"] == "east"
    assert (await service.get(f"{URL}/{id_of('east')}")).status == 200
    assert {(await one).status for one in waiting} == {503}


@pytest.mark.usefixtures("without_reaper")
async def test_each_cluster_has_its_namespace_and_access(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    clusters["west"].make_namespace("other")
    own = {"namespace": "other", "access": "cluster-ip", "cluster_domain": "west.local"}
    write(path, clusters, west=own)
    service = await start_replica()
    urls = {name: (await create(service, id_of(name)))["sandbox_url"] for name in NAMES}
    assert urls["east"].startswith("http://127.0.0.1:")
    assert urls["west"].startswith(f"http://sandbox-{id_of('west')}-svc.other.svc.west.local:")
    assert pods(clusters["west"]) == {}
    assert [pod["metadata"]["namespace"] for pod in clusters["west"].objects("Pod")] == ["other"]


@pytest.mark.deadlines(clusters_poll=3600.0)
async def test_each_cluster_has_a_reaper_of_its_own(clusters: dict[str, Cluster], start_replica: StartReplica) -> None:
    service = await start_replica(REAPER_INTERVAL="0.5")
    await create(service, id_of("east"))
    clusters["east"].faults.refuse()
    await create(service, id_of("west"), ttl_seconds=1)
    # The one of the cluster that is away holds up no other.
    await until(lambda: not pods(clusters["west"]))
    clusters["east"].faults.clear()
    assert set(pods(clusters["east"])) == {id_of("east")}
    assert set(fleet_of(service).clusters) == set(NAMES)
