"""Pod → its status, for every Pod of the record."""

from __future__ import annotations

import copy
from typing import Any

from sandboxes.status.reasons import has_ended, readiness_of, status_of
from tests.record import recorded_pods, watch_events

WORDS = {
    "pod-crash-loop": "Failed",
    "pod-creating": "Pending",
    "pod-evicted-empty-dir-size-limit": "Failed",
    "pod-evicted-ephemeral-failed": "Failed",
    "pod-evicted-ephemeral-never-failed": "Failed",
    "pod-evicted-ephemeral-never-failed-still-creating": "Failed",
    "pod-evicted-ephemeral-never-succeeded": "Succeeded",
    "pod-evicted-ephemeral-succeeded": "Succeeded",
    "pod-evicted-ephemeral-writable-layer": "Failed",
    "pod-failed": "Failed",
    "pod-failed-mount": "Pending",
    "pod-image-pull-backoff": "Pending",
    "pod-native-sidecar-not-started": "Pending",
    "pod-native-sidecar-unready": "Running",
    "pod-nested-mount-read-only": "Failed",
    "pod-nested-mount-read-only-never": "Failed",
    "pod-never-native-sidecar-exit-0": "Succeeded",
    "pod-never-native-sidecar-exit-1": "Failed",
    "pod-never-sidecar-exit-0": "Succeeded",
    "pod-never-sidecar-exit-1": "Failed",
    "pod-oom-killed": "Running",
    "pod-ready": "Running",
    "pod-running-unready": "Running",
    "pod-succeeded": "Succeeded",
    "pod-terminating": "NotFound",
    "pod-node-lost": "Unknown",
    "pod-node-lost-terminating": "NotFound",
    "pod-unschedulable": "Pending",
}


def test_every_recorded_pod_has_its_status() -> None:
    assert {name: status_of(pod) for name, pod in recorded_pods().items()} == WORDS


def test_the_recorded_watch_has_every_status_but_unknown() -> None:
    words = {status_of(event["object"]) for event in watch_events() if event["object"]["kind"] == "Pod"}
    assert {"Pending", "Running", "Failed", "Succeeded", "NotFound"} <= words


def on_lost_node() -> Any:
    """Return a Pod in the state set by `MarkPodsNotReady` of Kubernetes when its node does not respond."""
    pod = copy.deepcopy(recorded_pods()["pod-ready"])
    (ready,) = (one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    ready |= {"status": "False", "lastTransitionTime": "2026-11-22T05:00:00Z"}
    return pod


def test_a_pod_on_a_lost_node_is_unknown() -> None:
    assert status_of(on_lost_node()) == "Unknown"
    pod = on_lost_node()
    pod["spec"]["nodeName"] = "n7"
    assert readiness_of(pod) == (False, "NodeNotReady", "node n7 does not answer")
    pod["status"] = {"phase": "Unknown"}
    assert status_of(pod) == "Unknown"


def test_a_pod_with_reason_node_lost_is_unknown() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-ready"])
    pod["status"]["reason"] = "NodeLost"
    assert status_of(pod) == "Unknown"


def test_a_pod_with_an_unready_readiness_gate_is_running() -> None:
    pod = on_lost_node()
    (ready,) = (one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    ready |= {"reason": "ReadinessGatesNotReady", "message": "corresponding condition of pod readiness gate"}
    assert status_of(pod) == "Running"
    assert readiness_of(pod)[1] == "ReadinessGatesNotReady"


def test_a_pod_without_a_status_is_pending() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-creating"])
    del pod["status"]
    assert status_of(pod) == "Pending"


def test_a_crashing_sidecar_does_not_fail_the_sandbox() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-crash-loop"])
    pod["status"]["containerStatuses"][0]["name"] = "sidecar"
    assert status_of(pod) == "Running"


def test_only_pods_that_are_not_restarted_have_ended() -> None:
    assert {name for name, pod in recorded_pods().items() if has_ended(pod)} == {
        "pod-failed",
        "pod-nested-mount-read-only-never",
        "pod-succeeded",
        *(name for name in WORDS if name.startswith(("pod-evicted-", "pod-never-"))),
    }
