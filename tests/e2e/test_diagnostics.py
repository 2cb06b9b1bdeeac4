"""Diagnostics of sandboxes that a real scheduler or kubelet rejects."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL, Service


def diagnostics_of(service: Service, sandbox_id: str) -> dict[str, Any]:
    answer = service.call("GET", f"{URL}/{sandbox_id}/diagnostics")
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


@pytest.mark.repeats("tests/contract/test_reasons_live.py::test_diagnostics_have_events_containers_and_logs")
def test_diagnostics_of_a_ready_sandbox_report_no_problem(service: Service, sandbox_id: str) -> None:
    service.create(sandbox_id)
    wait_for(lambda: service.get(sandbox_id).body["ready"], "the sandbox is ready")
    got = service.get(sandbox_id).body
    assert (got["reason"], got["message"]) == (None, None)
    found = diagnostics_of(service, sandbox_id)
    assert found["summary"].startswith("Nothing is wrong: the sandbox is ready")
    assert (found["ready"], found["status"], found["sandbox_url"]) == (True, "Running", got["sandbox_url"])
    assert (found["logs"]["error"], found["previous_logs"]) == (None, None)
    assert found["events"]["error"] is None
    assert "Scheduled" in {event["reason"] for event in found["events"]["items"]}
    [container] = [one for one in found["containers"] if one["name"] == "sandbox"]
    assert (container["state"]["state"], container["restart_count"]) == ("running", 0)
    assert service.call("GET", f"{URL}/{sandbox_id}-none/diagnostics").status == 404


@pytest.mark.repeats("tests/contract/test_reasons_live.py::test_each_state_has_its_status_reason_and_summary")
def test_an_unschedulable_sandbox_is_diagnosed(service: Service, target: Target, sandbox_id: str) -> None:
    command = [sys.executable, str(ROOT / "provisioner.py"), "render", "--sandbox-id", sandbox_id]
    printed = subprocess.run(command, env=service.environ, capture_output=True, text=True, check=True).stdout
    objects = json.loads(printed)
    objects["items"][0]["spec"]["nodeSelector"] = {"example.com/no-such": "node"}
    target.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(objects))
    wait_for(lambda: service.get(sandbox_id).body.get("reason") == "Unschedulable", "the Pod is unschedulable")
    found = diagnostics_of(service, sandbox_id)
    assert (found["status"], found["ready"], found["reason"]) == ("Pending", False, "Unschedulable")
    assert found["summary"].startswith("No node can take the sandbox")
    assert found["message"]
    assert "FailedScheduling" in {event["reason"] for event in found["events"]["items"]}
    assert found["logs"]["lines"] == []


@pytest.mark.parametrize(
    ("variables", "reasons", "sentence"),
    [
        ({"SANDBOX_IMAGE": "registry.invalid/none:1"}, {"ErrImagePull", "ImagePullBackOff"}, "can't be pulled"),
        ({"SKILLS_HOST_PATH": "/no/such/folder/of/skills"}, {"FailedMount"}, "A volume can't be mounted"),
    ],
    ids=["image", "mount"],
)
def test_image_and_mount_errors_of_the_node_are_diagnosed(
    start_service: StartService,
    target: Target,
    sandbox_id: str,
    variables: dict[str, str],
    reasons: set[str],
    sentence: str,
) -> None:
    if not target.is_real:
        pytest.skip("devcluster pulls and mounts nothing; tests/contract has these states. Run with E2E_KUBECONFIG")
    service = start_service(**variables)
    service.create(sandbox_id)
    wait_for(lambda: diagnostics_of(service, sandbox_id)["reason"] in reasons, f"the reason is one of {reasons}")
    found = diagnostics_of(service, sandbox_id)
    assert sentence in found["summary"]
    assert not found["ready"]
    assert found["logs"]["error"]
