"""Pod and Events → the cause in a diagnosis, where the Events know more than the Pod's status."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sandboxes.status.advice import summary_of
from sandboxes.status.causes import cause_of
from sandboxes.status.reasons import Trouble, status_of, trouble_of
from tests.record import RECORDED, case, recorded_pods

Pod = dict[str, Any]
Event = dict[str, Any]
OVER_LIMIT = "used more disk than its limit of ephemeral-storage allows"


def event(reason: str, message: str = "m", *, at: str = "2026-11-22T04:20:17Z", container: str = "") -> Event:
    field = {"fieldPath": f"spec.containers{{{container}}}"} if container else {}
    kind = "Normal" if reason in ("Killing", "TaintManagerEviction", "Preempted", "Created") else "Warning"
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": at, "involvedObject": field}


def diagnosed(pod: Pod, *events: Event) -> Trouble:
    trouble = cause_of(pod, trouble_of(pod), events)
    assert trouble is not None
    return trouble


def sentence(pod: Pod, *events: Event) -> str:
    return summary_of(pod, diagnosed(pod, *events), has_url=True)


def test_an_eviction_that_only_the_events_report_is_the_cause() -> None:
    pod = recorded_pods()["pod-evicted-ephemeral-succeeded"]
    events = case("events-evicted-ephemeral-succeeded").items
    trouble = diagnosed(pod, *events)
    assert (trouble.reason, trouble.exit_code) == ("Evicted", 0)
    assert OVER_LIMIT in sentence(pod, *events)
    assert "correct its image" not in sentence(pod, *events)


@pytest.mark.parametrize("name", ["watch-evicted", "watch-evicted-status-unknown"])
def test_every_recorded_step_of_an_eviction_names_it_once_it_is_reported(name: str) -> None:
    lines = (RECORDED / "kubectl" / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
    evicted = case("events-evicted-ephemeral-failed").items
    pods = [json.loads(line)["object"] for line in lines]
    ended = [pod for pod in pods if status_of(pod) in ("Failed", "Succeeded")]
    assert {status_of(pod) for pod in ended} == {"Failed", "Succeeded"}
    for pod in ended:
        assert diagnosed(pod, *evicted).reason == "Evicted"
        assert OVER_LIMIT in sentence(pod, *evicted)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Pod ephemeral local storage usage exceeds the total limit of containers 500Mi. ",
            f"The sandbox {OVER_LIMIT}, which is 500Mi: ",
        ),
        (
            'Container side exceeded its local ephemeral storage limit "1Gi". ',
            f"Container side {OVER_LIMIT}, which is 1Gi: ",
        ),
        (
            'Usage of EmptyDir volume "disk" exceeds the limit "20Mi". ',
            "The sandbox used more disk than the size limit of its volume disk allows, which is 20Mi: ",
        ),
        (
            'Usage of EmptyDir volume "shm" exceeds the limit "64Mi". ',
            "The sandbox used more memory than the size limit of its volume shm allows, which is 64Mi: ",
        ),
        ("The node was low on resource: ephemeral-storage. ", "Node node1 ran short of a resource and evicted "),
        ("The node had condition: [DiskPressure]. ", "Node node1 ran short of a resource and evicted "),
    ],
)
def test_an_eviction_says_whose_limit_was_passed(message: str, said: str) -> None:
    pod = copy.deepcopy(recorded_pods()["pod-succeeded"])
    pod["spec"]["volumes"] = [{"name": "disk", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}]
    assert sentence(pod, event("Evicted", message)).startswith(said)
    pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
    assert sentence(pod).startswith(said)


def test_a_container_cannot_pretend_an_eviction() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-failed"])
    over = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    over["message"] = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    assert OVER_LIMIT not in sentence(pod)


@pytest.mark.parametrize("reason", ["Preempting", "Preempted", "DeadlineExceeded", "TaintManagerEviction"])
def test_an_event_that_the_pod_was_stopped_goes_before_its_exit_code(reason: str) -> None:
    pod = recorded_pods()["pod-succeeded"]
    assert diagnosed(pod, event(reason)).reason == reason
    assert "correct its image" not in sentence(pod, event(reason))


def test_what_the_pod_says_of_itself_as_a_whole_goes_before_any_stop_but_an_eviction() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-failed"])
    pod["status"]["reason"] = "DeadlineExceeded"
    assert diagnosed(pod, event("Preempted")).reason == "DeadlineExceeded"
    assert diagnosed(pod, event("Evicted")).reason == "Evicted"


def test_a_taint_eviction_that_was_cancelled_is_no_cause() -> None:
    pod = recorded_pods()["pod-failed"]
    begun = event("TaintManagerEviction", "Marking for deletion Pod deer-flow/sandbox-a")
    cancelled = event("TaintManagerEviction", "Cancelling deletion of Pod deer-flow/sandbox-a")
    assert diagnosed(pod, begun, cancelled).reason == "Error"
    assert diagnosed(pod, cancelled, begun).reason == "TaintManagerEviction"


def test_a_ready_pod_has_no_cause_whatever_its_events_say() -> None:
    assert cause_of(recorded_pods()["pod-ready"], None, [event("Unhealthy"), event("Preempting")]) is None


@pytest.mark.parametrize("probe", ["liveness", "startup"])
def test_a_failed_probe_is_the_cause_of_the_run_that_it_ended(probe: str) -> None:
    pod = recorded_pods()["pod-crash-loop"]  # its last run: 04:20:17
    killed = event("Killing", f"Container sandbox failed {probe} probe, will be restarted", container="sandbox")
    assert diagnosed(pod, killed).reason == "Unhealthy"
    assert sentence(pod, killed).startswith(f"Container sandbox was stopped because its {probe} probe failed")


@pytest.mark.parametrize(
    "other",
    [
        event("Killing", "Container sandbox failed liveness probe, will be restarted", at="2026-11-22T04:19:00Z"),
        event("Killing", "Container side failed liveness probe, will be restarted"),
        event("Killing", "Stopping container sandbox"),
        event("FailedPostStartHook", container="side"),
    ],
)
def test_what_ended_another_run_or_container_is_not_the_cause(other: Event) -> None:
    assert diagnosed(recorded_pods()["pod-crash-loop"], other).reason == "CrashLoopBackOff"


def test_a_failed_hook_is_the_cause_of_the_run_that_it_ended() -> None:
    pod = recorded_pods()["pod-crash-loop"]
    failed = event("FailedPostStartHook", "PostStartHook failed", container="sandbox")
    assert diagnosed(pod, failed).reason == "FailedPostStartHook"
    assert "its postStart hook failed" in sentence(pod, failed)


def test_a_container_that_ran_out_of_memory_did_so_whatever_its_probe_says() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-crash-loop"])
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] = "OOMKilled"
    killed = event("Killing", "Container sandbox failed liveness probe, will be restarted")
    assert diagnosed(pod, killed).reason == "OOMKilled"


def test_an_unready_sidecar_is_named_with_what_its_probe_says() -> None:
    pod = recorded_pods()["pod-native-sidecar-unready"]
    trouble = diagnosed(pod, *case("events-native-sidecar-unready").items)
    assert (trouble.reason, trouble.container) == ("Unhealthy", "helper")
    assert trouble.message is not None
    assert trouble.message.startswith("Readiness probe failed")
    assert "sidecar helper" in sentence(pod, *case("events-native-sidecar-unready").items)


def test_a_failed_probe_of_a_container_that_is_ready_by_now_is_not_the_cause() -> None:
    pod = recorded_pods()["pod-native-sidecar-unready"]
    assert diagnosed(pod, event("Unhealthy", container="sandbox")).reason == "NotReady"


def test_an_ordinary_sidecar_that_is_not_ready_is_named() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-running-unready"])
    statuses = pod["status"]["containerStatuses"]
    statuses.append({**copy.deepcopy(statuses[0]), "name": "side"})
    statuses[0]["ready"] = True
    assert "sidecar side" in sentence(pod)
    statuses[0]["ready"] = False
    assert sentence(pod).startswith("The containers run, but a probe does not pass yet")


def test_a_native_sidecar_that_waits_for_its_readiness_does_not_hide_a_failure() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-native-sidecar-unready"])
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
    pod["status"]["containerStatuses"][0] |= {"state": waiting, "ready": False, "started": False}
    assert diagnosed(pod).reason == "ImagePullBackOff"


def test_the_sandbox_container_goes_before_a_native_sidecar_that_crashes_beside_it() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-native-sidecar-unready"])
    crash = {"terminated": {"exitCode": 1, "reason": "Error"}}
    pod["status"]["initContainerStatuses"][0] |= {"state": crash, "started": False}
    assert diagnosed(pod).container == "helper"
    pod["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert diagnosed(pod).container == "sandbox"


def test_a_long_init_container_is_named() -> None:
    pod = copy.deepcopy(recorded_pods()["pod-native-sidecar-not-started"])
    del pod["spec"]["initContainers"][0]["restartPolicy"]
    assert diagnosed(pod).reason == "PodInitializing"
    assert sentence(pod).startswith("The init container helper has not finished yet")


def test_a_pod_that_cannot_be_stopped_says_so() -> None:
    pod = recorded_pods()["pod-creating"]
    assert "can't stop what runs" in sentence(pod, event("FailedKillPod", "error killing pod: failed"))
