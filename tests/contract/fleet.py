"""Starts replicas with two clusters, and reads what these have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.api.app_keys import SANDBOXES
from sandboxes.fleet.rendezvous import home, order
from sandboxes.fleet.service import Fleet
from tests.contract.service import URL, Provisioner, StartProvisioner

NS = "deer-flow"
NAMES = ("east", "west")
FIELDS = "cluster,cluster_labels,on_cluster_loss,wait_seconds,force,ttl_seconds"

StartReplica = Callable[..., Awaitable[Provisioner]]


@pytest.fixture
async def west(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a second cluster, with the namespace of the sandboxes."""
    async with Cluster(directory=tmp_path / "west") as west:
        west.make_namespace(NS)
        yield west


@pytest.fixture
async def clusters(cluster: Cluster, west: Cluster) -> dict[str, Cluster]:
    """Return both clusters by name."""
    cluster.make_namespace(NS)
    return {"east": cluster, "west": west}


@pytest.fixture
def path(tmp_path: Path, clusters: dict[str, Cluster]) -> Path:
    """Return a file with both clusters."""
    return write(tmp_path / "clusters.yaml", clusters)


@pytest.fixture
def start_replica(start_provisioner: StartProvisioner, path: Path) -> StartReplica:
    """Return a function that starts a replica with both clusters."""

    async def start(**variables: str) -> Provisioner:
        return await start_provisioner(**{"CLUSTERS_FILE": str(path), "ALLOW_FIELDS": FIELDS, **variables})

    return start


def write(path: Path, clusters: dict[str, Cluster], **fields: dict[str, Any]) -> Path:
    """Write the file, with these fields of the entries by name."""
    entries = [
        {"name": name, "kubeconfig": str(one.kubeconfig), "labels": {"region": name}, **fields.get(name, {})}
        for name, one in clusters.items()
    ]
    path.write_text(yaml.safe_dump(entries))
    return path


def fleet_of(service: Provisioner) -> Fleet:
    fleet = service.client.app[SANDBOXES]
    assert isinstance(fleet, Fleet)
    return fleet


def id_of(name: str, number: int = 0) -> str:
    """Return the id, with this number, of a sandbox whose home is this cluster, and which goes there."""
    ids = (f"s{index}" for index in range(1000))
    weights = dict.fromkeys(NAMES, 1.0)
    return [one for one in ids if home(one, NAMES) == name and order(one, weights)[0] == name][number]


def pods(cluster: Cluster) -> dict[str, str]:
    """Return the uids of the Pods that are not terminating by the id of their sandbox."""
    return {
        kube.get_labels(pod)[kube.ID_LABEL]: pod["metadata"]["uid"]
        for pod in cluster.objects("Pod", NS)
        if "deletionTimestamp" not in pod["metadata"]
    }


def markers(cluster: Cluster) -> set[str]:
    """Return the names of the markers."""
    names = {one["metadata"]["name"] for one in cluster.objects("ConfigMap", NS)}
    return {name for name in names if name.endswith("-elsewhere")}


async def listed(service: Provisioner, query: str = "") -> dict[str, Any]:
    """Return the list, with the clusters by id in place of the sandboxes."""
    response = await service.get(f"{URL}{query}")
    assert response.status == 200
    answer: dict[str, Any] = await response.json()
    return {**answer, "sandboxes": {one["sandbox_id"]: one["cluster"] for one in answer["sandboxes"]}}


async def answered(service: Provisioner, sandbox_id: str) -> tuple[int, dict[str, Any]]:
    response = await service.get(f"{URL}/{sandbox_id}")
    return response.status, await response.json()
