"""MAX_SANDBOXES for all clusters together, and `max_sandboxes` of an entry for its cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.errors import TooManySandboxes
from tests.contract.cluster_files import create_on, entry, units_of, write
from tests.contract.service import Provisioner, StartProvisioner
from tests.contract.test_clusters import NONE, becomes, clusters_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.role("components/clusters"),
    pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, ready_believed=0.0),
    pytest.mark.usefixtures("without_reaper"),
]


async def refused(service: Provisioner, name: str, sandbox_id: str) -> tuple[int, int]:
    """Return count and limit with which a create on the named cluster is refused."""
    with pytest.raises(TooManySandboxes) as caught:
        await create_on(service, name, sandbox_id)
    return caught.value.count, caught.value.limit


@pytest.fixture
def path(cluster: Cluster, west: Cluster, tmp_path: Path) -> Path:
    return write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west, max_sandboxes=1))


@pytest.mark.parametrize("live_view", ["true", "false"])
async def test_the_limit_of_the_service_is_for_all_clusters_together(
    path: Path, start_provisioner: StartProvisioner, live_view: str
) -> None:
    service = await start_provisioner(CLUSTERS_FILE=str(path), MAX_SANDBOXES="3", LIVE_VIEW=live_view)
    await create_on(service, "east", "a")
    await create_on(service, "west", "b")
    if live_view == "true":
        await becomes(service, "west", sandboxes={**NONE, "Running": 1})
    assert await refused(service, "west", "c") == (1, 1)
    await create_on(service, "east", "d")
    assert await refused(service, "east", "e") == (3, 3)
    await create_on(service, "east", "d")


async def test_concurrent_creates_on_two_clusters_do_not_pass_the_limit(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    service = await start_provisioner(CLUSTERS_FILE=str(path), MAX_SANDBOXES="3")
    creates = [create_on(service, name, f"{name}-{number}") for number in range(4) for name in ("east", "west")]
    outcomes = await asyncio.gather(*creates, return_exceptions=True)
    assert [type(one) for one in outcomes].count(TooManySandboxes) == 5
    assert len(cluster.objects("Pod")) + len(west.objects("Pod")) == 3


async def test_a_cluster_that_is_away_counts_with_what_is_known_of_it(
    west: Cluster, path: Path, start_provisioner: StartProvisioner
) -> None:
    service = await start_provisioner(CLUSTERS_FILE=str(path), MAX_SANDBOXES="2")
    await create_on(service, "west", "a")
    await becomes(service, "west", sandboxes={**NONE, "Running": 1})
    west.faults.hang(open_watches=True)
    await asyncio.wait_for(create_on(service, "east", "b"), 20)
    assert await refused(service, "east", "c") == (2, 2)


async def test_only_the_limit_of_an_entry_is_the_capacity_of_its_cluster(
    path: Path, start_provisioner: StartProvisioner
) -> None:
    service = await start_provisioner(CLUSTERS_FILE=str(path), MAX_SANDBOXES="9")
    found = await clusters_of(service)
    assert found["east"]["capacity"]["max_sandboxes"] is None
    assert found["west"]["capacity"]["max_sandboxes"] == 1
    assert list(units_of(service).units) == ["east", "west"]
