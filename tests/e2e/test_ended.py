"""Sandboxes that end by themselves, or that the kubelet ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.templates import write_template
from tests.e2e.test_diagnostics import diagnostics_of

LIMIT = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "32Mi"}


def uid_of_pod(target: Target, sandbox_id: str) -> str:
    (uid,) = (one["metadata"]["uid"] for one in target.objects(sandbox_id) if one["kind"] == "Pod")
    return str(uid)


@pytest.mark.parametrize(("exit_code", "status"), [(0, "Succeeded"), (3, "Failed")])
def test_a_sandbox_that_ends_beside_a_sidecar_is_over_and_replaced(
    start_service: StartService, target: Target, sandbox_id: str, tmp_path: Path, exit_code: int, status: str
) -> None:
    target.needs("commands of a container")
    side = {"name": "side", "image": target.image, "command": ["sleep", "3600"]}
    templates = write_template(
        tmp_path,
        "once",
        pod={"restartPolicy": "Never", "containers": [side]},
        command=["sh", "-c", f"exit {exit_code}"],
    )
    service = start_service(SANDBOX_TEMPLATES_DIR=templates)
    service.create(sandbox_id, template="once")
    wait_for(lambda: service.get(sandbox_id).body.get("status") == status, f"the sandbox is {status}")
    assert not service.get(sandbox_id).body["ready"]
    before = uid_of_pod(target, sandbox_id)
    service.create(sandbox_id, template="once")
    assert uid_of_pod(target, sandbox_id) != before


def test_an_eviction_for_the_own_ephemeral_storage_limit_is_named(
    start_service: StartService, target: Target, sandbox_id: str, tmp_path: Path
) -> None:
    target.needs("use of disk")
    templates = write_template(
        tmp_path,
        "greedy",
        resources={"requests": LIMIT, "limits": LIMIT},
        command=["sh", "-c", "dd if=/dev/zero of=/tmp/filled bs=1M count=256; exec sleep 3600"],
    )
    service = start_service(SANDBOX_TEMPLATES_DIR=templates)
    service.create(sandbox_id, template="greedy")
    wait_for(
        lambda: "used more disk than its limit of ephemeral-storage" in diagnostics_of(service, sandbox_id)["summary"],
        "the summary names the limit",
        seconds=180,
    )
    assert "Evicted" in {one["reason"] for one in diagnostics_of(service, sandbox_id)["events"]["items"]}
