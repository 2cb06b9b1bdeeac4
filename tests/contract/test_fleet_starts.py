"""Several clusters behind one API: what a start believes, and what its log says that it can't know."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.fleet.markers import RECORD_NAME
from tests.audit import CLUSTERS
from tests.contract.fleet import NS, StartReplica, answered, fleet_of, id_of, listed, pods, write
from tests.contract.service import URL, create
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=0.2, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


def believed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the starts since the last call have said that they can't know."""
    said = [one.getMessage() for one in caplog.records if "believed at the start" in one.getMessage()]
    caplog.clear()
    return said


async def test_the_log_says_at_a_start_what_the_file_and_the_clusters_do_not_say(
    clusters: dict[str, Cluster],
    start_replica: StartReplica,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    await start_replica()
    (said,) = believed(caplog)
    assert said == (
        "CLUSTERS_FILE is believed at the start; no record of clusters yet in east, west: earlier lists, if any, are "
        "not known"
    )
    # The record is there, and names the same clusters: all is known.
    await start_replica()
    assert believed(caplog) == []
    clusters["west"].faults.refuse()
    await start_replica()
    (said,) = believed(caplog)
    assert said.endswith("no answer from west: whether a record there names other clusters is not known")
    clusters["west"].faults.clear()
    write(path, {"east": clusters["east"]})
    await start_replica()
    (said,) = believed(caplog)
    assert "the record of clusters names west, which the file lacks: what is there is not known" in said


async def test_a_start_without_a_cluster_waits_for_it_no_longer_than_its_ids(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    one = await start_replica()
    here, there, far = id_of("east"), id_of("west"), id_of("west", 1)
    await create(one, here)
    await create(one, there)
    await create(one, far, cluster="east")
    await one.client.close()
    write(path, {"east": clusters["east"]})
    two = await start_replica()
    await until(lambda: fleet_of(two).directory.homes.newest.names == {"east"})
    # What is on the cluster that is left goes on, also where the other one had said so.
    for sandbox_id in (here, far):
        assert (await answered(two, sandbox_id))[1]["cluster"] == "east"
        assert (await create(two, sandbox_id))["cluster"] == "east"
    assert (await create(two, id_of("east", 1)))["cluster"] == "east"
    # What may be on the other one is neither gone nor made anew.
    for sandbox_id in (there, id_of("west", 2)):
        status, answer = await answered(two, sandbox_id)
        assert (status, answer["detail"]) == (
            503,
            "Cluster 'west' is not in the list of clusters, and only it knows where this sandbox is",
        )
        assert (await two.delete(f"{URL}/{sandbox_id}")).status == 503
        for wish in ({}, {"on_cluster_loss": "recreate"}):
            assert (await two.post(URL, json={"sandbox_id": sandbox_id, **wish})).status == 503
    answer = await listed(two)
    assert answer["incomplete"] == ["west"]
    assert set(pods(clusters["west"])) == {there}
    # Nor after another start.
    three = await start_replica()
    assert (await answered(three, there))[0] == 503
    # Its entry is back: so is the sandbox.
    write(path, clusters)

    async def is_back() -> bool:
        return (await answered(two, there))[0] == 200

    await until(is_back)
    assert (await listed(two)).get("incomplete") is None


async def test_an_empty_cluster_that_a_start_did_not_find_leaves_after_the_file_has_said_so(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path
) -> None:
    one = await start_replica()
    await create(one, id_of("east"))
    await one.client.close()
    write(path, {"east": clusters["east"]})
    service = await start_replica()
    await until(lambda: fleet_of(service).directory.homes.newest.names == {"east"})
    assert (await service.post(URL, json={"sandbox_id": id_of("west")})).status == 503
    # Either its entry is back for a moment, and it is asked; or the file says that it is lost.
    for fields in ({}, {"lost": True}):
        write(path, clusters, west=fields)
        await until(lambda: fleet_of(service).directory.homes.unlisted == set())
        await until(lambda: "west" in fleet_of(service).directory.homes.members)
        write(path, {"east": clusters["east"]})
        await until(lambda: set(fleet_of(service).clusters) == {"east"})
        sandbox_id = id_of("west", 3 + len(fields))

        async def is_made(sandbox_id: str = sandbox_id) -> bool:
            return (await service.post(URL, json={"sandbox_id": sandbox_id})).status == 200

        await until(is_made)
        assert (await answered(service, sandbox_id))[1]["cluster"] == "east"
    (record,) = (one for one in clusters["east"].objects("ConfigMap", NS) if one["metadata"]["name"] == RECORD_NAME)
    assert record["data"].get("unlisted") is None
