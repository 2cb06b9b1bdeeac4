"""Several clusters, and nobody calls: the rounds of the directory and of the reapers start no kubectl."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandboxes.fleet.service import Fleet
from tests.audit import CLUSTERS
from tests.contract.fleet import StartReplica, fleet_of, id_of
from tests.contract.service import create
from tests.contract.test_fleet_views import all_fresh, without_watches
from tests.contract.views import TamperedKubectl
from tests.waiting import until

pytestmark = [
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=3600.0, watch_pauses=(0.05, 0.1)),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]
ROUNDS = 5


async def do_round(fleet: Fleet) -> None:
    """Do what is done each REAPER_INTERVAL."""
    assert await fleet.keeper.agree()
    await fleet.keeper.clean_up()
    for one in fleet.clusters.values():
        await one.unit.service.reaper.round(dry_run=False, halves_must_last=True)


async def test_rounds_of_an_idle_service_start_no_kubectl(
    start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    service = await start_replica(KUBECTL=str(tampered.path))
    await create(service, id_of("east"))
    await create(service, id_of("west"), cluster="east")  # with a marker
    fleet = fleet_of(service)
    await all_fresh(service)
    # The first round asks all, and looks for what templates have left, as it does each ten minutes.
    await do_round(fleet)
    before = without_watches(tampered)
    for _ in range(ROUNDS):
        await do_round(fleet)
    assert without_watches(tampered) == before


async def test_a_record_that_another_replica_changes_is_taken_in_the_next_round(start_replica: StartReplica) -> None:
    service = await start_replica()
    fleet = fleet_of(service)
    await all_fresh(service)
    for _ in range(2):
        await do_round(fleet)
    west, members = fleet.clusters["west"], list(fleet.directory.homes.members.values())
    record = await west.record()
    assert record is not None
    stored = await west.put_record(replace(record, coming=(frozenset({"east"}),)))
    await until(lambda: west.still_has(stored))
    assert not await fleet.directory.adopt(members)
    assert fleet.directory.homes.doubtful >= {frozenset({"east"})}
    await fleet.keeper.agree()
    await do_round(fleet)
