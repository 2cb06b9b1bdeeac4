"""A cluster whose entry has left the file, or was started anew: nothing of it goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.errors import ClusterUnavailable, ProvisionerError
from sandboxes.fleet.breaker import MOST_FAILURES
from sandboxes.models.requests import CreateRequest
from tests.audit import CLUSTERS
from tests.contract.cluster_files import change, entry, units_of, write
from tests.contract.fleet import FIELDS, fleet_of, pods
from tests.contract.service import Provisioner, StartProvisioner, create
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, settle_pause=0.2, fleet_probe_most=0.5),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


def processes_of(kubeconfig: Path) -> list[bytes]:
    """Return the command lines of the processes that use this kubeconfig."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if bytes(kubeconfig) in line:
            found.append(line)
    return found


def tasks() -> Counter[str]:
    """Count the running tasks by what they run, but for those of the tests' own requests."""
    names = (str(getattr(one.get_coro(), "__qualname__", one)) for one in asyncio.all_tasks())
    return Counter(name for name in names if not name.startswith("RequestHandler."))


async def test_nothing_of_a_cluster_that_has_left_the_file_goes_on(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    cluster.make_namespace("deer-flow")
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path), ALLOW_FIELDS=FIELDS)
    await create(service, "a")
    await until(lambda: units_of(service).units["east"].cluster.informer_state.watching == 3)
    before = tasks()
    await change(service, path, entry("east", cluster), entry("west", west))
    fleet = fleet_of(service)
    await until(lambda: fleet.directory.homes.names == {"east", "west"})
    unit, left = units_of(service).units["west"], fleet.clusters["west"]
    await until(lambda: unit.cluster.informer_state.watching == 3)
    assert processes_of(west.kubeconfig)
    # It has a probe, and a Pod to withdraw.
    made, _ = await left.make(CreateRequest(sandbox_id="b"), "")
    west.faults.refuse()
    with pytest.raises(ClusterUnavailable):
        await left.withdraw("b", made.uid)
    for _ in range(MOST_FAILURES):
        with pytest.raises(ProvisionerError):
            await left.record()
    assert left.breaker.is_open
    await change(service, path, entry("east", cluster), entry("west", west, lost=True))
    await until(lambda: fleet.directory.homes.names == {"east"})
    await change(service, path, entry("east", cluster))
    await until(lambda: set(fleet.clusters) == {"east"})
    await until(lambda: not processes_of(west.kubeconfig))
    await until(lambda: tasks() <= before)
    assert unit.cluster.informer_state.watching == 0


async def test_a_unit_that_is_started_anew_withdraws_what_the_former_one_had_to(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.make_namespace("deer-flow")
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service: Provisioner = await start_provisioner(CLUSTERS_FILE=str(path), ALLOW_FIELDS=FIELDS)
    former = fleet_of(service).clusters["east"]
    made, _ = await former.make(CreateRequest(sandbox_id="a"), "")
    returned, _ = await former.make(CreateRequest(sandbox_id="b"), "")
    cluster.faults.answer(500, verb="delete", resource="pods")
    with pytest.raises(ProvisionerError):
        await former.withdraw("a", made.uid)
    await change(service, path, entry("east", cluster, max_sandboxes=7))
    assert fleet_of(service).clusters["east"] is not former
    cluster.faults.clear()
    await until(lambda: set(pods(cluster)) == {"b"})
    # A create that began before is withdrawn through the new one.
    assert await fleet_of(service).clusters["east"].withdraw("b", returned.uid)
    assert pods(cluster) == {}
    assert not any("may be left behind" in one.getMessage() for one in caplog.records)
