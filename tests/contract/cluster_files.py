"""Writes CLUSTERS_FILE, and works on the clusters of a service that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from devcluster import Cluster
from sandboxes.api.app_keys import CLUSTER_UNITS
from sandboxes.cluster_units import ClusterUnits
from sandboxes.models.requests import CreateRequest
from tests.contract.service import Provisioner


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """Write the file, and return its path."""
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def entry(name: str, cluster: Cluster, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kubeconfig": str(cluster.kubeconfig), **fields}


def units_of(service: Provisioner) -> ClusterUnits:
    return service.client.app[CLUSTER_UNITS]


async def create_on(service: Provisioner, name: str, sandbox_id: str) -> None:
    await units_of(service).units[name].service.create(CreateRequest(sandbox_id=sandbox_id, thread_id="t"))


async def change(service: Provisioner, path: Path, *entries: dict[str, Any]) -> None:
    """Write a new version of the file, and let the service read it."""
    write(path, *entries)
    await units_of(service).follow_once()
