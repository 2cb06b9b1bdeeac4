"""Helpers for tests of expiry, keepalive, the reaper and rollback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.objects import KubeObject
from sandboxes.service.reaper import Reaper
from tests.contract.service import URL, Provisioner

POD = ("Pod", "deer-flow", "sandbox-a")
SERVICE = ("Service", "deer-flow", "sandbox-a-svc")


def reaper_of(provisioner: Provisioner) -> Reaper:
    return provisioner.client.app[SANDBOX_SERVICE].reaper


def uid_of(cluster: Cluster) -> str | None:
    pod = cluster.get(*POD)
    return None if pod is None else str(pod["metadata"]["uid"])


def annotations_of(cluster: Cluster) -> dict[str, str]:
    """Return the annotations of sandbox a's Pod. The service writes them, and no kubelet does."""
    pod = cluster.get(*POD)
    assert pod is not None
    return dict(pod["metadata"]["annotations"])


def seconds_until(time: str) -> float:
    return (datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()


def pass_time(monkeypatch: pytest.MonkeyPatch, **time: float) -> None:
    """Move the service's clock ahead."""
    ahead = timedelta(**time)
    monkeypatch.setattr(expiry, "present", lambda: datetime.now(UTC) + ahead)


async def reaps_one(provisioner: Provisioner) -> bool:
    """Run one round of the reaper; return whether it deleted one. A Pod that just changed waits for the next round."""
    return len(await reaper_of(provisioner).round(dry_run=False)) == 1


def nothing_left(cluster: Cluster) -> bool:
    return not cluster.objects("Pod") and not cluster.objects("Service")


async def get_sandbox(provisioner: Provisioner, sandbox_id: str = "a") -> dict[str, Any]:
    answer: dict[str, Any] = await (await provisioner.get(f"{URL}/{sandbox_id}")).json()
    return answer


async def renew(provisioner: Provisioner, seconds: int) -> dict[str, Any]:
    response = await provisioner.post(f"{URL}/a/renew", json={"ttl_seconds": seconds})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


def is_ready(pod: KubeObject) -> bool:
    return kube.condition_of(pod, "Ready").get("status") == "True"
