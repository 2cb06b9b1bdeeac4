"""/readyz with CLUSTERS_FILE: what it says of each cluster, and when the service is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import CLUSTERS
from tests.contract.cluster_files import entry, write
from tests.contract.service import Provisioner, StartProvisioner
from tests.waiting import until

pytestmark = [
    pytest.mark.role("components/clusters"),
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=0.0, ready=30.0),
    pytest.mark.usefixtures("without_reaper"),
]

AWAY = "The cluster can't be reached"


@pytest.fixture
async def service(cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path) -> Provisioner:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    return await start_provisioner(CLUSTERS_FILE=str(path))


async def becomes(service: Provisioner, status: int, **checks: str) -> None:
    """Wait until /readyz has this status and exactly these checks."""

    async def is_so() -> bool:
        response = await service.get("/readyz")
        return (response.status, await response.json()) == (status, {"ready": status == 200, "checks": checks})

    await until(is_so)


async def test_the_service_is_ready_while_one_cluster_is(cluster: Cluster, west: Cluster, service: Provisioner) -> None:
    await becomes(service, 200, east="ok", west="ok")
    cluster.faults.refuse()
    await becomes(service, 200, east=AWAY, west="ok")
    west.faults.refuse()
    await becomes(service, 503, east=AWAY, west=AWAY)
    cluster.faults.clear()
    await becomes(service, 200, east="ok", west=AWAY)


@pytest.mark.slow
async def test_a_lost_cluster_without_a_service_is_named_with_the_reason(service: Provisioner) -> None:
    service.client.app[CLUSTERS].unusable["north"] = "Kubeconfig /north can't be read."
    await becomes(service, 200, east="ok", west="ok", north="Kubeconfig /north can't be read.")


async def test_a_service_with_ready_clusters_is_not_ready_when_it_ends(service: Provisioner) -> None:
    await becomes(service, 200, east="ok", west="ok")
    service.client.app[CLUSTERS].stop()
    await becomes(service, 503, serving="The provisioner is shutting down")
