"""Environments of services with and without a gateway, and helpers for the tests of sandboxes behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devcluster import Cluster
from tests.contract.service import URL, Provisioner

NS = "deer-flow"
BASE = "http://gateway.example:8003"
KEY = "k" * 44


def gateway(tmp_path: Path, access: str = "gateway", keys: str = KEY) -> dict[str, str]:
    """Return the environment of a service whose sandboxes have this access, beside a gateway of its own process."""
    path = tmp_path / "gateway-keys"
    path.write_text(f"{keys}\n")
    return {
        "SANDBOX_ACCESS": access,
        "SANDBOX_GATEWAY_URL": BASE,
        "SANDBOX_GATEWAY_SERVE": "false",
        "SANDBOX_GATEWAY_DIAL": "pod-ip",
        "SANDBOX_GATEWAY_KEYS_FILE": str(path),
    }


# An empty variable counts as unset.
NO_GATEWAY = {
    "SANDBOX_ACCESS": "",
    "SANDBOX_GATEWAY_URL": "",
    "SANDBOX_GATEWAY_SERVE": "",
    "SANDBOX_GATEWAY_DIAL": "",
    "SANDBOX_GATEWAY_KEYS_FILE": "",
}


def pod_of(cluster: Cluster, sandbox_id: str = "a") -> dict[str, Any]:
    pod = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
    assert pod is not None
    return pod


def services(cluster: Cluster) -> set[str]:
    """Return the ids of the sandboxes that have a Service."""
    return {service["metadata"]["labels"]["sandbox-id"] for service in cluster.objects("Service", NS)}


async def urls(provisioner: Provisioner) -> dict[str, str]:
    """Return the URL of each sandbox in the list; each is that of a get, too."""
    listed = await (await provisioner.get(URL)).json()
    found = {one["sandbox_id"]: one["sandbox_url"] for one in listed["sandboxes"]}
    for sandbox_id, url in found.items():
        assert (await (await provisioner.get(f"{URL}/{sandbox_id}")).json())["sandbox_url"] == url
    return found
