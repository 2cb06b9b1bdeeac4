"""Several clusters: reads are answered from the live views of the home, and what these do not show is read live."""

from __future__ import annotations

from collections import Counter

import pytest

from devcluster import Cluster
from sandboxes.cluster.directory_view import DirectoryView
from sandboxes.fleet.directory import Located
from sandboxes.fleet.markers import marker_name
from tests.audit import CLUSTERS, DEFAULTS
from tests.contract.fleet import StartReplica, answered, fleet_of, id_of, listed, markers, pods
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.views import TamperedKubectl, until_fresh
from tests.waiting import until

pytestmark = [
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=3600.0, clusters_answer=10.0, watch_pauses=(0.05, 0.1)),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


def view_of(service: Provisioner, name: str) -> DirectoryView:
    view = fleet_of(service).clusters[name].unit.service.cluster.directory_view
    assert view is not None
    return view


async def all_fresh(service: Provisioner) -> None:
    """Wait until all live views can be used."""
    views = [view_of(service, name) for name in fleet_of(service).clusters]
    await until(lambda: all(view.is_fresh for view in views))


def seen(service: Provisioner, sandbox_id: str) -> Located | None:
    return fleet_of(service).directory.seen(sandbox_id)


def without_watches(tampered: TamperedKubectl) -> Counter[str]:
    calls = tampered.calls()
    del calls["watch"]
    return calls


async def test_a_new_replica_reads_no_sandbox_by_a_kubectl_of_its_own(
    start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    one = await start_replica()
    here, there, far = id_of("east"), id_of("west"), id_of("east", 1)
    for sandbox_id in (here, there):
        await create(one, sandbox_id)
    await create(one, far, cluster="west")
    two = await start_replica(KUBECTL=str(tampered.path))
    await all_fresh(two)
    before = without_watches(tampered)
    expected = {here: "east", there: "west", far: "west"}
    for _ in range(2):
        for sandbox_id, name in expected.items():
            status, answer = await answered(two, sandbox_id)
            assert (status, answer["cluster"]) == (200, name)
        assert (await listed(two))["sandboxes"] == expected
    assert without_watches(tampered) == before
    # The only call is the proof of an absence.
    assert (await answered(two, id_of("west", 1)))[0] == 404
    assert without_watches(tampered) - before == Counter(other=1)


async def test_each_cluster_has_one_watch_more_which_the_metrics_count(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    await all_fresh(service)
    await until(lambda: [one.open_watches() for one in clusters.values()] == [3, 3])
    assert [one.open_watches("ConfigMap") for one in clusters.values()] == [1, 1]
    text = await (await service.get("/metrics")).text()
    assert 'provisioner_kubectl_processes{cluster="west",state="watching"} 3.0' in text
    assert 'provisioner_watch_restarts_total{cluster="west",resource="configmaps"} 0.0' in text


@pytest.mark.slow
async def test_a_sandbox_that_another_replica_places_elsewhere_is_seen(
    start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    one, two = await start_replica(), await start_replica(KUBECTL=str(tampered.path))
    await all_fresh(two)
    sandbox_id = id_of("east")
    await create(one, sandbox_id, cluster="west")
    await until(lambda: seen(two, sandbox_id) is not None)
    before = without_watches(tampered)
    assert (await answered(two, sandbox_id))[1]["cluster"] == "west"
    assert without_watches(tampered) == before


@pytest.mark.slow
async def test_a_pod_at_home_is_read_live_while_the_notes_are_older_than_it(
    clusters: dict[str, Cluster], start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    one, two = await start_replica(), await start_replica(KUBECTL=str(tampered.path))
    await all_fresh(two)
    for number in range(2):
        await create(one, id_of("east", number))
    east = fleet_of(two).clusters["east"].unit.service.cluster
    await until(lambda: all(east.seen(id_of("east", number))[0] for number in range(2)))
    before = without_watches(tampered)
    assert seen(two, id_of("east")) is None
    assert (await answered(two, id_of("east")))[1]["cluster"] == "east"
    assert without_watches(tampered) - before == Counter(other=1)
    clusters["east"].send_bookmarks("ConfigMap")
    await until(lambda: seen(two, id_of("east", 1)) is not None)
    assert (await answered(two, id_of("east", 1)))[1]["cluster"] == "east"
    assert without_watches(tampered) - before == Counter(other=1)


@pytest.mark.slow
async def test_while_the_watch_of_the_notes_fails_first_reads_are_live(
    clusters: dict[str, Cluster], start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    one = await start_replica()
    sandbox_id = id_of("east")
    await create(one, sandbox_id, cluster="west")
    two = await start_replica(KUBECTL=str(tampered.path))
    await all_fresh(two)
    assert seen(two, sandbox_id) is not None
    clusters["east"].faults.answer(500, verb="watch", resource="configmaps")
    clusters["east"].faults.cut_watches("configmaps")
    await until(lambda: not view_of(two, "east").is_fresh)
    before = without_watches(tampered)
    assert seen(two, sandbox_id) is None
    assert (await answered(two, sandbox_id))[1]["cluster"] == "west"
    assert without_watches(tampered) - before >= Counter(other=1)
    # The sandboxes' own view does not suffer, and the service is ready.
    assert fleet_of(two).clusters["east"].unit.service.cluster.is_fresh
    assert (await two.get("/readyz")).status == 200
    assert (await listed(two))["sandboxes"] == {sandbox_id: "west"}
    clusters["east"].faults.clear()
    await until(lambda: seen(two, sandbox_id) is not None)


@pytest.mark.slow
async def test_a_replica_follows_when_a_marker_and_its_sandbox_are_deleted(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = await start_replica(), await start_replica()
    sandbox_id = id_of("east")
    await create(one, sandbox_id, cluster="west")
    await all_fresh(two)
    assert (await answered(two, sandbox_id))[1]["cluster"] == "west"
    assert (await one.delete(f"{URL}/{sandbox_id}")).status == 200

    async def is_gone() -> bool:
        return (await answered(two, sandbox_id))[0] == 404

    await until(is_gone)
    assert markers(clusters["east"]) == {marker_name(sandbox_id)}
    await until(lambda: view_of(one, "east").get(marker_name(sandbox_id)) is not None)
    await fleet_of(one).keeper.clean_up()
    assert markers(clusters["east"]) == set()
    await until(lambda: view_of(two, "east").get(marker_name(sandbox_id)) is None)
    assert (await create(one, sandbox_id))["cluster"] == "east"
    assert (await answered(two, sandbox_id))[1]["cluster"] == "east"
    assert pods(clusters["west"]) == {}


@pytest.mark.slow
async def test_a_round_of_clean_up_reads_no_marker_whose_sandbox_is_seen(
    clusters: dict[str, Cluster], start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    service = await start_replica(KUBECTL=str(tampered.path))
    kept, gone = id_of("east"), id_of("east", 1)
    for sandbox_id in (kept, gone):
        await create(service, sandbox_id, cluster="west")
    assert (await service.delete(f"{URL}/{gone}")).status == 200
    await until(lambda: seen(service, kept) is not None)
    await until(lambda: view_of(service, "east").get(marker_name(gone)) is not None)
    before = without_watches(tampered)
    await fleet_of(service).keeper.clean_up()
    assert markers(clusters["east"]) == {marker_name(kept)}
    # Of one that is not seen: its home, its cluster, its delete. The Pods are those of the live views.
    assert without_watches(tampered) - before == Counter(other=3)


@pytest.mark.role(DEFAULTS)
async def test_without_a_list_of_clusters_no_config_map_is_listed_or_watched(
    cluster: Cluster, start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    service = await start_provisioner(KUBECTL=str(tampered.path))
    await until_fresh(service)
    await until(lambda: cluster.open_watches() == 2)
    await create(service, "a")
    assert (await service.get(f"{URL}/a")).status == 200
    calls = (tampered.path.parent / "calls").read_text()
    assert "configmaps" not in calls
    assert tampered.calls()["watch"] == tampered.calls()["list"] == 2
    assert "configmaps" not in await (await service.get("/metrics")).text()
