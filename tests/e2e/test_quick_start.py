"""The quick start: by REST, by scripts, and by kubectl."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import KUBECTL, Target, wait_for
from tests.e2e.service import URL, Service, answers


def test_a_sandbox_is_created_listed_and_deleted(service: Service, target: Target, sandbox_id: str) -> None:
    made = service.create(sandbox_id, thread_id="e2e", user_id="e2e")
    wait_for(lambda: answers(made["sandbox_url"]), "the sandbox responds at its URL")
    wait_for(lambda: service.is_running(sandbox_id), "the sandbox is Running", seconds=5)
    assert service.create(sandbox_id, thread_id="e2e", user_id="e2e")["sandbox_url"] == made["sandbox_url"]
    listed = service.call("GET", URL).body
    assert sandbox_id in {sandbox["sandbox_id"] for sandbox in listed["sandboxes"]}
    assert service.delete(sandbox_id).status == 200
    assert service.get(sandbox_id).status == 404
    wait_for(lambda: not target.objects(sandbox_id), "the sandbox's objects are deleted")
    assert service.delete(sandbox_id).status == 200


@pytest.mark.repeats("tests/contract/test_service.py::test_a_sandbox_is_created_served_listed_and_deleted")
def test_a_sandbox_is_ready_within_a_minute(service: Service, target: Target, sandbox_id: str) -> None:
    service.create(sandbox_id)
    target.kubectl("wait", "--for=condition=Ready", f"pod/sandbox-{sandbox_id}", "--timeout=60s")


def test_smoke_sh_succeeds(service: Service, target: Target) -> None:
    path = f"{KUBECTL.rpartition('/')[0]}:{service.environ['PATH']}"
    environ = {**service.environ, "PATH": path, "KUBECONFIG": str(target.kubeconfig)}
    command = [str(ROOT / "scripts" / "smoke.sh"), service.base, "--kubectl"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "smoke: all is well"


@pytest.mark.repeats("tests/contract/test_service.py::test_manually_applied_manifests_are_found_served_and_deleted")
def test_a_sandbox_applied_by_hand_is_found(service: Service, target: Target) -> None:
    folder = str(ROOT / "manifests" / "sandbox")
    target.kubectl("apply", "--server-side", "-f", folder)
    try:
        assert service.get("example").status == 200
    finally:
        target.kubectl("delete", "-f", folder, "--wait=false")


@pytest.mark.repeats("tests/contract/test_service.py::test_applying_rendered_manifests_gives_the_same_sandbox")
def test_a_sandbox_applied_from_render_is_returned_unchanged(service: Service, target: Target, sandbox_id: str) -> None:
    command = [sys.executable, str(ROOT / "provisioner.py"), "render", "--sandbox-id", sandbox_id, "--thread-id", "t"]
    printed = subprocess.run(command, env=service.environ, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["kind"] == "List"
    target.kubectl("apply", "--server-side", "-f", "-", stdin=printed)
    before = {obj["metadata"]["uid"] for obj in target.objects(sandbox_id)}
    made = service.create(sandbox_id, thread_id="t")
    assert {obj["metadata"]["uid"] for obj in target.objects(sandbox_id)} == before
    wait_for(lambda: answers(made["sandbox_url"]), "the sandbox responds at its URL")
