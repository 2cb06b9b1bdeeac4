"""GET /api/clusters with a real kubectl, and clusters that are started and ended while the service runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.authorization import Right
from sandboxes.api.app_keys import CLUSTERS
from tests.contract.kubectls import new_kubectl
from tests.contract.service import Provisioner, StartProvisioner, create
from tests.deploy import objects
from tests.waiting import until

NONE = {"Pending": 0, "Running": 0, "Failed": 0, "Succeeded": 0, "Unknown": 0}


async def clusters_of(service: Provisioner) -> dict[str, dict[str, Any]]:
    """Return the clusters that the service lists, by name."""
    response = await service.get("/api/clusters")
    assert response.status == 200
    answer = await response.json()
    return {one["name"]: one for one in answer["clusters"]}


async def becomes(service: Provisioner, name: str, **fields: Any) -> None:
    """Wait until the list shows these fields of a cluster."""

    async def is_so() -> bool:
        one = (await clusters_of(service)).get(name, {})
        return {key: one.get(key) for key in fields} == fields

    await until(is_so)


async def test_the_only_cluster_is_default_with_its_version_and_sandboxes(provisioner: Provisioner) -> None:
    await create(provisioner, "a")
    await create(provisioner, "b")
    await becomes(provisioner, "default", version="v1.36.2", sandboxes={**NONE, "Running": 2})
    await becomes(provisioner, "default", capacity={"max_sandboxes": None, "quota": {}})
    one = (await clusters_of(provisioner))["default"]
    assert one["state"] == "ready"
    assert one["last_error"] is None


@pytest.mark.deadlines(ready_believed=0.0)
async def test_a_cluster_that_goes_away_and_comes_back_is_said_to(provisioner: Provisioner, cluster: Cluster) -> None:
    await becomes(provisioner, "default", state="ready")
    cluster.faults.refuse()
    await becomes(provisioner, "default", state="unreachable", last_error="The cluster can't be reached")
    cluster.faults.clear()
    await becomes(provisioner, "default", state="ready", last_error=None)


async def test_the_list_is_answered_while_the_cluster_hangs(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    cluster.faults.hang(open_watches=True)
    service = await start_provisioner()
    # The look at the cluster takes up to 30 s here, and so has not ended.
    one = (await asyncio.wait_for(clusters_of(service), 15))["default"]
    assert (one["state"], one["version"], one["sandboxes"]) == ("degraded", None, None)
    assert one["last_error"] == "The cluster does not answer at the moment"
    assert (await service.get("/health")).status == 200
    assert len(service.client.app[CLUSTERS].by_name) == 1


@pytest.mark.deadlines(ready_believed=0.0)
async def test_with_the_shipped_role_the_quota_is_null_and_was_asked_for_once(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    cluster.authorization.restrict("deer-flow", objects(new_kubectl(), ".")["Role"]["rules"])
    await becomes(provisioner, "default", version="v1.36.2", state="ready")
    for _ in range(3):
        assert (await clusters_of(provisioner))["default"]["capacity"]["quota"] is None
    assert Right("list", "", "resourcequotas") in cluster.authorization.refused
    cluster.authorization.refused.clear()
    await becomes(provisioner, "default", state="ready")
    assert cluster.authorization.refused == set()
