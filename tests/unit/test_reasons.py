"""Pod → the reason why it is not ready, and its summary, for every Pod of the record."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sandboxes.status.advice import SUMMARIES, summary_of
from sandboxes.status.reasons import HOPELESS, MAX_MESSAGE, VAGUE, cause_in, readiness_of, trouble_of
from tests.record import case, recorded_pods, watch_events

EXIT = "container sandbox ended with exit code"
NO_NODE = (
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)
OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi."
NO_PULL = 'failed to pull and unpack image "registry.invalid/none:1"'

# case: (ready, reason, beginning of the message)
EXPECTED: dict[str, tuple[bool, str | None, str | None]] = {
    "pod-crash-loop": (False, "CrashLoopBackOff", f"{EXIT} 3; back-off 10s restarting failed container=sandbox"),
    "pod-creating": (False, "ContainerCreating", None),
    "pod-evicted-empty-dir-size-limit": (
        False,
        "Evicted",
        'Usage of EmptyDir volume "scratch" exceeds the limit "20Mi".',
    ),
    "pod-evicted-ephemeral-failed": (False, "Evicted", OWN_DISK),
    "pod-evicted-ephemeral-never-failed": (False, "Evicted", OWN_DISK),
    "pod-evicted-ephemeral-never-failed-still-creating": (False, "Evicted", OWN_DISK),
    "pod-evicted-ephemeral-never-succeeded": (False, "Completed", f"{EXIT} 0"),
    "pod-evicted-ephemeral-succeeded": (False, "Completed", f"{EXIT} 0"),
    "pod-evicted-ephemeral-writable-layer": (False, "Evicted", OWN_DISK),
    "pod-failed": (False, "Error", f"{EXIT} 7"),
    "pod-failed-mount": (False, "ContainerCreating", None),
    "pod-image-pull-backoff": (
        False,
        "ImagePullBackOff",
        f'Back-off pulling image "registry.invalid/none:1": ErrImagePull: {NO_PULL}',
    ),
    "pod-native-sidecar-not-started": (False, "NotReady", "the sidecar helper runs, but its startup probe"),
    "pod-native-sidecar-unready": (False, "NotReady", "containers with unready status: [helper]"),
    "pod-nested-mount-read-only": (False, "StartError", f"{EXIT} 128: failed to create containerd task"),
    "pod-nested-mount-read-only-never": (False, "StartError", f"{EXIT} 128: failed to create containerd task"),
    "pod-node-lost": (False, "NodeNotReady", "node node1 does not answer"),
    "pod-node-lost-terminating": (False, "NodeNotReady", "node node1 does not answer"),
    "pod-never-native-sidecar-exit-0": (False, "Completed", f"{EXIT} 0"),
    "pod-never-native-sidecar-exit-1": (False, "Error", f"{EXIT} 1"),
    "pod-never-sidecar-exit-0": (False, "Completed", f"{EXIT} 0"),
    "pod-never-sidecar-exit-1": (False, "Error", f"{EXIT} 1"),
    "pod-oom-killed": (True, None, None),
    "pod-ready": (True, None, None),
    "pod-running-unready": (False, "NotReady", "containers with unready status: [sandbox]"),
    "pod-succeeded": (False, "Completed", f"{EXIT} 0"),
    "pod-terminating": (True, None, None),
    "pod-unschedulable": (False, "Unschedulable", NO_NODE),
}

# Successive reasons of the Pods of the recorded watch, without repetitions.
WATCHED: dict[str, list[str | None]] = {
    "sandbox-a": ["Unschedulable"],
    "sandbox-b": ["Unschedulable"],
    "sandbox-c": ["Unschedulable"],
    "sandbox-warn": ["Unschedulable"],
    "sandbox-ready": ["Pending", "ContainerCreating", "NotReady", None],
    "sandbox-unready": ["Pending", "ContainerCreating", "NotReady"],
    "sandbox-nopull": [
        *("Pending", "ContainerCreating"),
        *("ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff", "ErrImagePull"),
    ],
    "sandbox-crash": [
        *("Pending", "ContainerCreating", None, "Error", None, "Error", "CrashLoopBackOff", None, "Error"),
    ],
    "sandbox-done": ["Pending", "ContainerCreating", None, "Completed"],
    "sandbox-fail": ["Pending", "ContainerCreating", None, "Error"],
    "sandbox-oom": ["Pending", "ContainerCreating", None, *["OOMKilled", None] * 3],
    "sandbox-mount": ["Pending", "ContainerCreating"],
    "sandbox-slow": ["Pending", "ContainerCreating", None, "Error"],
}
WATCHED["sandbox-oom"].pop()

EVICTED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: memory.",
    "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"},
        {"type": "Ready", "status": "False", "reason": "PodFailed"},
    ],
    "containerStatuses": [
        {"name": "sandbox", "restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    ],
}


def pod_in(name: str, **status: Any) -> dict[str, Any]:
    """Return a recorded Pod with another status, or a part of it."""
    pod = copy.deepcopy(recorded_pods()[name])
    pod["status"] = {**pod["status"], **status}
    return pod


def with_state(**state: Any) -> dict[str, Any]:
    """Return a Pod that is not ready, whose sandbox container is in this state."""
    status = {"name": "sandbox", "restartCount": 0, "state": state, "lastState": {}}
    return pod_in("pod-running-unready", containerStatuses=[status])


def with_init(state: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a Pod that is being initialized by a container in this state."""
    pod = pod_in("pod-creating", initContainerStatuses=[{"name": "prepare", "state": state, "lastState": {}}])
    pod["spec"]["initContainers"] = [{"name": "prepare", "image": "prepare:1", **spec}]
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "PodInitializing"}}
    return pod


def test_every_recorded_pod_has_its_reason_and_message() -> None:
    pods = recorded_pods()
    assert pods.keys() == EXPECTED.keys()
    for name, pod in pods.items():
        ready, reason, message = readiness_of(pod)
        expected = EXPECTED[name]
        assert (name, ready, reason) == (name, *expected[:2])
        assert (message or "").startswith(expected[2] or "")
        assert (message is None) == (expected[2] is None)


def test_every_pod_of_the_recorded_watch_has_its_reasons() -> None:
    found: dict[str, list[str | None]] = {}
    for event in watch_events():
        pod = event["object"]
        ready, reason, message = readiness_of(pod)
        assert ready == (reason is None)
        assert not ready or message is None
        reasons = found.setdefault(pod["metadata"]["name"], [])
        if reasons[-1:] != [reason]:
            reasons.append(reason)
    assert found == WATCHED


def test_the_cause_of_a_crash_loop_is_its_reason() -> None:
    loops = [
        event["object"]
        for event in watch_events()
        if event["object"]["metadata"]["name"] == "sandbox-oom" and "CrashLoopBackOff" in str(event["object"]["status"])
    ]
    assert [readiness_of(pod)[1] for pod in loops] == ["OOMKilled"]


def test_a_crash_loop_of_a_missing_program_has_reason_start_error() -> None:
    pod = pod_in("pod-crash-loop")
    found = "failed to start: exec: no such file"
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"] |= {
        "reason": "StartError",
        "exitCode": 128,
        "message": found,
    }
    assert readiness_of(pod) == (False, "StartError", f"{EXIT} 128: {found}")


def test_reasons_of_the_pod_precede_those_of_its_containers() -> None:
    pod = pod_in("pod-failed")
    pod["status"] = EVICTED
    assert readiness_of(pod) == (False, "Evicted", "The node was low on resource: memory.")
    preempted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "m"}
    pod["status"] = {"phase": "Failed", "conditions": [preempted]}
    assert readiness_of(pod) == (False, "PreemptionByScheduler", "m")


def test_an_ended_pod_is_not_ready() -> None:
    assert not readiness_of(pod_in("pod-ready", phase="Failed", reason="Evicted"))[0]


def test_a_failed_pod_without_containers_has_the_reason_of_its_condition() -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "PodFailed"}]
    assert readiness_of(pod_in("pod-failed", conditions=conditions, containerStatuses=[]))[1] == "PodFailed"
    assert readiness_of(pod_in("pod-failed", conditions=[], containerStatuses=None))[1] == "Failed"


def test_a_pod_without_a_status_is_pending() -> None:
    pod = pod_in("pod-unschedulable")
    del pod["status"]
    assert readiness_of(pod) == (False, "Pending", "no node has been chosen yet")


def test_an_unready_readiness_gate_is_the_reason() -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "m"}]
    assert readiness_of(pod_in("pod-running-unready", conditions=conditions)) == (False, "ReadinessGatesNotReady", "m")


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "RunContainerError", "InvalidImageName"])
def test_a_waiting_containers_reason_is_returned(reason: str) -> None:
    assert readiness_of(with_state(waiting={"reason": reason, "message": "m"})) == (False, reason, "m")


def test_a_running_or_failed_init_container_is_named() -> None:
    assert readiness_of(with_init({"running": {}})) == (
        False,
        "PodInitializing",
        "the init container prepare is still running",
    )
    failed = trouble_of(with_init({"terminated": {"exitCode": 2, "reason": "Error"}}))
    assert failed is not None
    assert (failed.reason, failed.container, failed.exit_code) == ("Error", "prepare", 2)
    pulled = with_init({"waiting": {"reason": "ImagePullBackOff", "message": "m"}})
    assert readiness_of(pulled) == (False, "ImagePullBackOff", "m")


def test_a_finished_init_container_is_no_reason() -> None:
    assert readiness_of(with_init({"terminated": {"exitCode": 0, "reason": "Completed"}}))[1] == "PodInitializing"
    sidecar = with_init({"running": {}}, restartPolicy="Always")
    sidecar["status"]["initContainerStatuses"][0] |= {"started": True, "ready": True}
    sidecar["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull"}}
    assert readiness_of(sidecar)[1] == "ErrImagePull"


def test_a_sidecars_reason_is_used_only_if_the_sandbox_container_has_none() -> None:
    pod = with_state(running={})
    sidecar = {"name": "a-sidecar", "state": {"waiting": {"reason": "ImagePullBackOff"}}, "lastState": {}}
    pod["status"]["containerStatuses"].insert(0, sidecar)
    trouble = trouble_of(pod)
    assert trouble is not None
    assert (trouble.reason, trouble.container) == ("ImagePullBackOff", "a-sidecar")
    pod["status"]["containerStatuses"][1]["state"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert readiness_of(pod)[1] == "OOMKilled"


def test_a_long_message_is_truncated() -> None:
    message = readiness_of(with_state(waiting={"reason": "x", "message": "m" * 5000}))[2]
    assert message is not None
    assert len(message) == MAX_MESSAGE


def test_a_failed_mount_is_found_in_the_events() -> None:
    pod = recorded_pods()["pod-failed-mount"]
    assert readiness_of(pod)[1] in VAGUE
    cause = cause_in(case("events-failed-mount").items)
    assert cause is not None
    assert cause.reason == "FailedMount"
    assert cause.reason in HOPELESS
    assert cause.message is not None
    assert "is not a directory" in cause.message


def test_events_before_a_later_success_are_ignored() -> None:
    mount = case("events-failed-mount").items
    assert cause_in([*mount, {"type": "Normal", "reason": "Pulling"}]) is None
    assert cause_in([]) is None
    assert cause_in([*mount, {"type": "Warning", "reason": "Other"}]) == cause_in(mount)


LOST = "Node node1 does not answer: if this persists, delete the sandbox and create it again, elsewhere."
OVER_LIMIT = (
    "The sandbox used more disk than its limit of ephemeral-storage allows, which is 20Mi: create it again, and give "
    "it more, or let it write less."
)
FINISHED = (
    "Container sandbox ended by itself, with exit code 0: a sandbox's server must keep running; correct its image or "
    "its settings; the same create again replaces it."
)
SIDECAR_UNREADY = (
    "The sidecar helper runs, but is not ready, so the sandbox is not ready: if this persists, check that it answers "
    "on its probe's port and path."
)
FAILED = (
    "Container sandbox ended with exit code 1: its last lines are in logs or previous_logs; correct its image or its "
    "settings; the same create again replaces it."
)

# case: its summary
SENTENCES = {
    "pod-crash-loop": "Container sandbox keeps exiting, last with exit code 3: its last lines are in "
    "previous_logs; correct its image or its settings.",
    "pod-creating": "The sandbox is still being made, volumes or image included: wait a moment and look again; if this "
    "persists, look at the events.",
    "pod-evicted-empty-dir-size-limit": "The sandbox used more disk than the size limit of its volume scratch allows, "
    "which is 20Mi: create it again, and give it more, or let it write less.",
    "pod-evicted-ephemeral-failed": OVER_LIMIT,
    "pod-evicted-ephemeral-never-failed": OVER_LIMIT,
    "pod-evicted-ephemeral-never-failed-still-creating": OVER_LIMIT,
    "pod-evicted-ephemeral-never-succeeded": FINISHED,
    "pod-evicted-ephemeral-succeeded": FINISHED,
    "pod-evicted-ephemeral-writable-layer": OVER_LIMIT,
    "pod-failed": "Container sandbox ended with exit code 7: its last lines are in logs or previous_logs; correct its "
    "image or its settings; the same create again replaces it.",
    "pod-failed-mount": "The sandbox is still being made, volumes or image included: wait a moment and look again; if "
    "this persists, look at the events.",
    "pod-image-pull-backoff": "The image registry.invalid/none:1 can't be pulled: check its name and tag, and that the "
    "node reaches the registry and may pull from it.",
    "pod-native-sidecar-not-started": SIDECAR_UNREADY,
    "pod-native-sidecar-unready": SIDECAR_UNREADY,
    "pod-nested-mount-read-only": "Container sandbox can't be run: the mount point /mnt/skills/custom can't be made in "
    "/mnt/skills, which is read-only: make the directory in the source of that mount, or mount neither read-only nor "
    "below it.",
    "pod-nested-mount-read-only-never": "Container sandbox can't be run: the mount point /mnt/skills/custom can't be "
    "made in /mnt/skills, which is read-only: make the directory in the source of that mount, or mount neither "
    "read-only nor below it; the same create again replaces it.",
    "pod-node-lost": LOST,
    "pod-node-lost-terminating": LOST,
    "pod-never-native-sidecar-exit-0": FINISHED,
    "pod-never-native-sidecar-exit-1": FAILED,
    "pod-never-sidecar-exit-0": FINISHED,
    "pod-never-sidecar-exit-1": FAILED,
    "pod-oom-killed": "Nothing is wrong: the sandbox is ready again, after 1 restart, the last for OOMKilled.",
    "pod-ready": "Nothing is wrong: the sandbox is ready.",
    "pod-running-unready": "The containers run, but a probe does not pass yet: if this persists, look at the logs and "
    "check that the server answers on the probe's port and path.",
    "pod-succeeded": "Container sandbox ended by itself, with exit code 0: a sandbox's server must keep running; "
    "correct its image or its settings; the same create again replaces it.",
    "pod-terminating": "Nothing is wrong: the sandbox is ready.",
    "pod-unschedulable": "No node can take the sandbox: add or free capacity, or ask for less, and check that a node "
    "fits the template's node selector and tolerations.",
}


def test_every_recorded_pod_has_its_summary() -> None:
    found = {name: summary_of(pod, trouble_of(pod), has_url=True) for name, pod in recorded_pods().items()}
    assert found == SENTENCES


def is_one_sentence(text: str) -> bool:
    return text[0].isupper() and text.endswith(".") and ". " not in text and "{" not in text and "\n" not in text


def test_every_pod_of_the_recorded_watch_has_a_summary_of_one_sentence() -> None:
    for event in watch_events():
        pod = event["object"]
        trouble = trouble_of(pod)
        for has_url in (True, False):
            sentence = summary_of(pod, trouble, has_url=has_url)
            assert is_one_sentence(sentence)
            assert sentence.startswith("Nothing is wrong") == (trouble is None and has_url)


@pytest.mark.parametrize("reason", sorted({*SUMMARIES, *HOPELESS, *VAGUE, "SomethingNew"}))
def test_every_reason_has_a_summary_of_one_sentence(reason: str) -> None:
    pod = with_state(waiting={"reason": reason})
    sentence = summary_of(pod, trouble_of(pod), has_url=True)
    assert is_one_sentence(sentence)
    assert ("message, events and logs" in sentence) == (reason == "SomethingNew")


def test_a_missing_folder_on_the_node_is_named() -> None:
    pod = recorded_pods()["pod-failed-mount"]
    assert summary_of(pod, cause_in(case("events-failed-mount").items), has_url=True) == (
        "A volume can't be mounted: /no/such/skills is not a directory on node node1: make it there, or correct the "
        "path of the mount."
    )


@pytest.mark.parametrize("reason", ["RunContainerError", "CreateContainerError"])
def test_a_mount_point_in_a_read_only_image_is_named(reason: str) -> None:
    found = 'error mounting "/srv/a" to rootfs at "/data": mkdir /run/rootfs/data: read-only file system'
    pod = with_state(waiting={"reason": reason, "message": found})
    assert "the mount point /data can't be made in the image, which is read-only" in summary_of(
        pod, trouble_of(pod), has_url=True
    )
    pod = with_state(waiting={"reason": reason, "message": "exec: no such file"})
    assert "check that the command and the paths of the image" in summary_of(pod, trouble_of(pod), has_url=True)


def test_the_summary_of_oom_killed_names_the_memory_limit() -> None:
    pod = next(event["object"] for event in watch_events() if readiness_of(event["object"])[1] == "OOMKilled")
    assert "its memory of 32Mi" in summary_of(pod, trouble_of(pod), has_url=True)


def test_the_summary_mentions_a_missing_service() -> None:
    ready, crash = recorded_pods()["pod-ready"], recorded_pods()["pod-crash-loop"]
    assert summary_of(ready, None, has_url=False) == (
        "The sandbox's Pod is ready, but its Service is missing or has no port: the same create again completes it."
    )
    assert "its Service is missing" in summary_of(crash, trouble_of(crash), has_url=False)
