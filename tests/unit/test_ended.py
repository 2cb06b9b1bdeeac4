"""When a sandbox has ended for good: its container `sandbox` decides, not the Pod's phase."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.cluster.terminations import TerminationLog
from sandboxes.service.reaper import due_of
from sandboxes.settings import Settings
from sandboxes.status.advice import summary_of
from sandboxes.status.reasons import has_ended, readiness_of, status_of, trouble_of
from tests.record import recorded_pods

Pod = dict[str, Any]


def ended(exit_code: int = 0, policy: str = "Never", **container: Any) -> Pod:
    """Return the recorded Pod whose sidecar runs on after its sandbox container has ended."""
    pod = copy.deepcopy(recorded_pods()["pod-never-sidecar-exit-0"])
    pod["spec"]["restartPolicy"] = policy
    kube.sandbox_container(pod).update(container)
    state = kube.sandbox_container_status(pod)["state"]
    state["terminated"] |= {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}
    return pod


def rule(operator: str, *values: int) -> dict[str, Any]:
    return {"action": "Restart", "exitCodes": {"operator": operator, "values": [*values]}}


@pytest.mark.parametrize(
    ("pod", "status"),
    [
        (ended(0, "Never"), "Succeeded"),
        (ended(1, "Never"), "Failed"),
        (ended(0, "OnFailure"), "Succeeded"),
        (ended(1, "OnFailure"), "Running"),
        (ended(0, "Always"), "Running"),
        (ended(1, "Always", restartPolicy="Never"), "Failed"),
        (ended(1, "Never", restartPolicy="OnFailure"), "Running"),
        (ended(0, "Never", restartPolicy="OnFailure"), "Succeeded"),
        (ended(3, "Never", restartPolicyRules=[rule("In", 3)]), "Running"),
        (ended(4, "Never", restartPolicyRules=[rule("In", 3)]), "Failed"),
        (ended(3, "Never", restartPolicyRules=[rule("NotIn", 3)]), "Failed"),
        (ended(4, "Never", restartPolicyRules=[rule("NotIn", 3)]), "Running"),
    ],
)
def test_the_status_is_how_the_sandbox_container_ended_if_it_stays_ended(pod: Pod, status: str) -> None:
    assert status_of(pod) == status
    assert has_ended(pod) == (status != "Running")


def test_a_sidecar_that_waits_does_not_hide_the_end_of_the_sandbox() -> None:
    pod = ended(1)
    pod["status"]["phase"] = "Pending"  # as long as any container waits for its first start
    pod["status"]["containerStatuses"][1]["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
    assert status_of(pod) == "Failed"
    assert readiness_of(pod) == (False, "Error", "container sandbox ended with exit code 1")


def test_a_sandbox_container_that_waits_again_or_is_not_reported_has_not_ended() -> None:
    waiting, unreported = ended(), ended()
    kube.sandbox_container_status(waiting)["state"] = {"waiting": {"reason": "PodInitializing"}}
    del unreported["status"]["containerStatuses"][0]
    assert [status_of(pod) for pod in (waiting, unreported)] == ["Running", "Running"]
    looping = recorded_pods()["pod-crash-loop"]
    assert (status_of(looping), has_ended(looping)) == ("Failed", False)


def test_an_init_container_that_failed_for_good_ends_the_sandbox() -> None:
    pod = ended()
    pod["status"] |= {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "prepare", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}],
    }
    pod["spec"]["initContainers"] = [{"name": "prepare", "image": "prepare:1"}]
    for status in pod["status"]["containerStatuses"]:
        status["state"] = {"waiting": {"reason": "PodInitializing"}}
    assert status_of(pod) == "Failed"
    trouble = trouble_of(pod)
    assert trouble is not None
    assert (trouble.container, trouble.exit_code) == ("prepare", 2)
    pod["spec"]["restartPolicy"] = "OnFailure"
    assert status_of(pod) == "Pending"


@pytest.mark.parametrize(("exit_code", "reason"), [(137, "Completed"), (0, "Completed")])
def test_the_end_of_a_native_sidecar_is_not_the_sandboxes_reason(exit_code: int, reason: str) -> None:
    pod = copy.deepcopy(recorded_pods()["pod-never-native-sidecar-exit-0"])
    helper = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]
    helper |= {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}
    assert readiness_of(pod) == (False, reason, "container sandbox ended with exit code 0")


def test_the_sidecar_that_made_the_pod_fail_is_named() -> None:
    pod = ended()
    pod["status"]["phase"] = "Failed"
    pod["status"]["containerStatuses"][1]["state"] = {"terminated": {"exitCode": 5, "reason": "Error"}}
    assert readiness_of(pod) == (False, "Error", "container sidecar ended with exit code 5")


def test_the_diagnosis_of_an_ended_sandbox_offers_the_same_create() -> None:
    pod = ended(1)
    assert summary_of(pod, trouble_of(pod), has_url=True).endswith("the same create again replaces it.")


def test_an_ended_sandbox_is_due_its_time_after_its_own_end(make_settings: Callable[..., Settings]) -> None:
    pod = ended(1, "OnFailure", restartPolicy="Never")
    pod["metadata"] |= {"labels": kube.labels_of("x"), "name": kube.pod_name("x")}
    at = datetime.fromisoformat("2026-11-26T03:29:08Z")
    # A sidecar that crashes again and again does not put it off.
    pod["status"]["containerStatuses"][1]["state"] = {
        "terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-26T09:00:00Z"}
    }
    assert expiry.ended_at(pod) == at
    service = {"kind": "Service", "metadata": {"name": "sandbox-x-svc", "labels": kube.labels_of("x")}}
    settings = make_settings(ENDED_TTL="60")
    assert due_of([pod, service], settings, at + timedelta(seconds=59)) == []
    [due] = due_of([pod, service], settings, at + timedelta(seconds=60))
    assert due.kind == "ended"


def test_an_end_without_a_known_time_is_not_before_the_creation() -> None:
    pod = ended()
    kube.sandbox_container_status(pod)["state"]["terminated"]["finishedAt"] = "1970-01-01T00:00:00Z"
    assert expiry.ended_at(pod) == expiry.created_at(pod)


def test_the_end_of_a_sandbox_beside_a_sidecar_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    terminations = TerminationLog()
    running, half, whole = ended(), ended(1), ended(1)
    kube.sandbox_container_status(running)["state"] = {"running": {}}
    whole["status"]["phase"] = "Failed"
    with caplog.at_level(logging.INFO, logger="sandboxes.cluster.terminations"):
        for old, new in ((None, running), (running, half), (half, whole)):
            terminations.on_exchange(old, new)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert " has ended: " in record.getMessage()
    assert "reason Error, exit code 1" in record.getMessage()
