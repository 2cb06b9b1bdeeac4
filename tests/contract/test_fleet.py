"""Several clusters behind one API: where a sandbox is made, found and deleted, with a real kubectl."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import CLUSTER_UNITS
from sandboxes.fleet.markers import marker_name
from tests.audit import CLUSTERS
from tests.contract.fleet import (
    FIELDS,
    NAMES,
    NS,
    StartReplica,
    answered,
    fleet_of,
    id_of,
    listed,
    markers,
    pods,
    write,
)
from tests.contract.service import URL, StartProvisioner, create
from tests.waiting import until

pytestmark = [
    pytest.mark.deadlines(clusters_poll=0.2, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


async def test_a_sandbox_is_made_at_home_and_found_by_another_replica(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = await start_replica(), await start_replica()
    for name in NAMES:
        made = await create(one, id_of(name))
        assert made["cluster"] == name
        assert set(pods(clusters[name])) == {id_of(name)}
        status, answer = await answered(two, id_of(name))
        assert (status, answer["cluster"]) == (200, name)
        assert markers(clusters[name]) == set()
    expected = {id_of(name): name for name in NAMES}
    for service in (one, two):
        answer = await listed(service)
        assert answer["sandboxes"] == expected
        assert "incomplete" not in answer
    assert (await listed(two, "?cluster=west"))["sandboxes"] == {id_of("west"): "west"}
    renewed = await two.post(f"{URL}/{id_of('east')}/renew", json={"ttl_seconds": 60})
    assert (renewed.status, (await renewed.json())["cluster"]) == (200, "east")
    assert (await (await two.post(f"{URL}/{id_of('west')}/touch")).json())["cluster"] == "west"
    assert (await one.get(f"{URL}/{id_of('west')}/diagnostics")).status == 200
    assert (await one.get(f"{URL}/nowhere")).status == 404


async def test_a_sandbox_on_a_named_cluster_has_a_marker_until_it_is_deleted(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one, two = await start_replica(), await start_replica()
    sandbox_id = id_of("east")
    made = await create(one, sandbox_id, cluster="west", wait_seconds=20)
    assert (made["cluster"], made["status"]) == ("west", "Running")
    assert (set(pods(clusters["west"])), pods(clusters["east"])) == ({sandbox_id}, {})
    assert markers(clusters["east"]) == {marker_name(sandbox_id)}
    for service in (one, two):
        assert (await answered(service, sandbox_id))[1]["cluster"] == "west"
        assert (await listed(service))["sandboxes"] == {sandbox_id: "west"}
        # Without a wish, or with another one, it stays where it is.
        assert (await create(service, sandbox_id))["cluster"] == "west"
        assert (await create(service, sandbox_id, cluster="east"))["cluster"] == "west"
        await fleet_of(service).keeper.clean_up()
    assert markers(clusters["east"]) == {marker_name(sandbox_id)}
    reconciled = await (await two.get(f"/api/reconciliation/sandboxes/{sandbox_id}")).json()
    assert (reconciled["status"], reconciled["incarnation_id"]) == ("found", pods(clusters["west"])[sandbox_id])
    assert (await two.delete(f"{URL}/{sandbox_id}")).status == 200
    assert pods(clusters["west"]) == {}
    assert (await answered(one, sandbox_id))[0] == 404
    await fleet_of(one).keeper.clean_up()
    assert markers(clusters["east"]) == set()
    assert (await answered(two, sandbox_id))[0] == 404
    assert (await create(two, sandbox_id))["cluster"] == "east"


async def test_a_cluster_is_chosen_by_labels_and_a_wrong_choice_lists_the_clusters(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    service = await start_replica()
    assert (await create(service, id_of("east"), cluster_labels={"region": "west"}))["cluster"] == "west"
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"cluster": "north"}, "There is no cluster of this name; there are: east, west"),
        (
            {"cluster_labels": {"region": "north"}},
            "No cluster has all these labels; there are: region=east, region=west",
        ),
        ({"cluster": "east", "cluster_labels": {"region": "west"}}, "Cluster east lacks some of these labels"),
    )
    for wish, sentence in wrong:
        response = await service.post(URL, json={"sandbox_id": "a", **wish})
        assert response.status == 422
        assert (await response.json())["detail"][0]["msg"] == sentence
    assert pods(clusters["east"]) == {}


async def test_wishes_are_refused_unless_allowed_and_without_a_list_of_clusters(
    start_replica: StartReplica, start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    cluster.make_namespace(NS)
    for service, status in (
        (await start_replica(ALLOW_FIELDS="none"), 403),
        (await start_provisioner(ALLOW_FIELDS=FIELDS, CLUSTERS_FILE=""), 422),
    ):
        wishes: list[dict[str, Any]] = [{"cluster": "west"}, {"cluster_labels": {}}, {"on_cluster_loss": "recreate"}]
        for wish in wishes:
            assert (await service.post(URL, json={"sandbox_id": "a", **wish})).status == status
    alone = await create(await start_provisioner(CLUSTERS_FILE="", ALLOW_FIELDS="none"), "a", cluster="west")
    assert "cluster" not in alone
    assert "incomplete" not in await (await service.get(f"{URL}?cluster=west")).json()


async def test_a_drained_cluster_gets_no_new_sandboxes_and_keeps_its_own(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    service = await start_replica()
    await create(service, id_of("east"))
    write(path, clusters, east={"weight": 0})
    await until(lambda: fleet_of(service).directory.homes.members["east"].weight == 0)
    assert (await create(service, id_of("east", 1)))["cluster"] == "west"
    assert (await create(service, id_of("east")))["cluster"] == "east"
    assert (await listed(service))["sandboxes"] == {id_of("east"): "east", id_of("east", 1): "west"}
    assert markers(clusters["east"]) == {marker_name(id_of("east", 1))}
    refused = await service.post(URL, json={"sandbox_id": id_of("east", 2), "cluster": "east"})
    assert refused.status == 429


async def test_a_new_weight_counts_before_all_clusters_have_been_asked_about_the_new_file(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_replica()

    async def hangs(_members: object) -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(fleet_of(service).directory, "adopt", hangs)
    write(path, clusters, west={"weight": 0})
    units = service.client.app[CLUSTER_UNITS]
    await until(lambda: [entry.weight for entry in units.entries] == [1, 0])
    assert (await create(service, id_of("west")))["cluster"] == "east"
