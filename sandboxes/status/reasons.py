"""Derives a Pod's status, its readiness and the reason why it is not ready. Pure.

Reasons are Kubernetes' own. Where a Pod's status has none, they are kubectl's `Pending`, `ContainerCreating` and
`NotReady`. `cause_in` finds those that only Events report, such as `FailedMount`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sandboxes import objects as kube
from sandboxes.models.responses import Status
from sandboxes.status.restarts import is_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxes.objects import KubeObject


# Reasons from which a Pod does not, or hardly ever, recover by itself.
HOPELESS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CrashLoopBackOff",
        "OOMKilled",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "StartError",
        "ContainerCannotRun",
        "Evicted",
        "FailedMount",
    }
)

# Characters. A container's own message may have 4096 bytes (terminationMessagePath).
MAX_MESSAGE = 1000

# The container waits for something else; it has not failed.
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})
# Termination reasons that do not name a cause.
PLAIN_ENDS = frozenset({"Error", "Completed"})
# Unspecific reasons; the Events may name the cause.
VAGUE = frozenset({"Pending", "NotReady", *_BEGINNING})
# A container's reasons that another container's failure goes before.
_NO_FAILURES = frozenset({"NotReady", "Completed", *_BEGINNING})

# Reasons of Warning Events that explain a vague reason.
_CAUSES = frozenset(
    {
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedCreatePodSandBox",
        "FailedCreatePodContainer",
        "FailedKillPod",
        "NetworkNotReady",
        "FailedScheduling",
        "NodeNotReady",
        "Unhealthy",
    }
)
# Event reasons that show progress: Warnings before them no longer apply.
_STEPS = frozenset({"Scheduled", "Pulling", "Pulled", "Created", "Started"})


# The field of a Pod that an Event of one of its containers names.
_FIELD_PATH = re.compile(r"spec\.\w+\{(?P<name>[^}]+)\}")


@dataclass(frozen=True)
class Trouble:
    """Why a Pod is not ready. `container` is the failing container, None for the Pod as a whole.

    `exit_code` is that of the container's termination, if it has terminated.
    """

    reason: str
    message: str | None
    container: str | None = None
    exit_code: int | None = None


def readiness_of(pod: KubeObject) -> tuple[bool, str | None, str | None]:
    """Return whether the Pod is ready, and the reason and message if it is not."""
    trouble = trouble_of(pod)
    return (True, None, None) if trouble is None else (False, trouble.reason, trouble.message)


def trouble_of(pod: KubeObject) -> Trouble | None:
    """Return why the Pod is not ready, or None if its Ready condition is True and it has not ended.

    Causes go before symptoms: a failure of the whole Pod, then scheduling, then the sandbox container if it has ended
    for good, then the first container that can't run, in the order init containers, sandbox container, sidecars.
    """
    ready = kube.condition_of(pod, "Ready")
    if ready.get("status") == "True" and not has_ended(pod):
        return None
    return (
        of_pod_as_a_whole(pod)
        or _unscheduled(pod)
        or _of_ended_sandbox(pod)
        or _of_containers(pod)
        or _not_ready(pod, ready)
    )


def of_pod_as_a_whole(pod: KubeObject) -> Trouble | None:
    """Return a failure of the whole Pod (Evicted, NodeNotReady, DeadlineExceeded, a preemption), or None."""
    status = pod.get("status") or {}
    if status.get("reason"):
        return Trouble(status["reason"], shortened(status.get("message")))
    disruption = kube.condition_of(pod, "DisruptionTarget")
    if disruption.get("status") == "True" and disruption.get("reason"):
        return Trouble(disruption["reason"], shortened(disruption.get("message")))
    if is_on_lost_node(pod):
        return Trouble("NodeNotReady", f"node {pod['spec'].get('nodeName')} does not answer")
    return None


def last_termination(pod: KubeObject, container: str | None = kube.CONTAINER) -> KubeObject | None:
    """Return the container's last `terminated` state, or None if it never terminated."""
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return next((_terminated(one) for one in statuses if one.get("name") == container), None)


def cause_in(events: Iterable[KubeObject]) -> Trouble | None:
    """Return the cause that a Pod's Events name, or None. `events` are sorted oldest first.

    Use it for a Pod with a VAGUE reason: a Pod whose volume can't be mounted stays `ContainerCreating`.
    """
    for event in reversed([*events]):
        if event.get("reason") in _STEPS:
            return None
        if event.get("type") == "Warning" and event.get("reason") in _CAUSES:
            return Trouble(event["reason"], shortened(event.get("message")), container_in(event))
    return None


def container_in(event: KubeObject) -> str | None:
    """Return the container that an Event of a Pod concerns, or None if it concerns the whole Pod."""
    named = _FIELD_PATH.fullmatch((event.get("involvedObject") or {}).get("fieldPath") or "")
    return named["name"] if named else None


def shortened(text: str | None) -> str | None:
    """Return the text cut to MAX_MESSAGE characters, or None for an empty one."""
    if not text or len(text) <= MAX_MESSAGE:
        return text or None
    return text[: MAX_MESSAGE - 1] + "…"


def _unscheduled(pod: KubeObject) -> Trouble | None:
    scheduled = kube.condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return Trouble(scheduled.get("reason") or "Unschedulable", shortened(scheduled.get("message")))
    if pod["spec"].get("nodeName") is None and not has_ended(pod):
        return Trouble("Pending", "no node has been chosen yet")
    return None


def _of_ended_sandbox(pod: KubeObject) -> Trouble | None:
    """Return how the sandbox container ended for good, or None if it did not, or if another one made the Pod fail."""
    if not is_over(pod, kube.CONTAINER):
        return None
    status = kube.sandbox_container_status(pod)
    trouble = _ended(status, status["state"]["terminated"])
    return None if trouble.exit_code == 0 and pod["status"].get("phase") == "Failed" else trouble


def _of_containers(pod: KubeObject) -> Trouble | None:
    """Return the first container's failure, else the first container that waits or has completed."""
    troubles = [trouble for status in _in_order(pod) if (trouble := _of_container(pod, status))]
    own = (one for one in troubles if one.reason not in _NO_FAILURES)
    return next(own, next(iter(troubles), None))


def _in_order(pod: KubeObject) -> Iterator[KubeObject]:
    """Yield the statuses of the init containers that are not done, then the sandbox container's, then its sidecars'."""
    status = pod.get("status") or {}
    has_begun = bool({"running", "terminated"} & {*(kube.sandbox_container_status(pod).get("state") or {})})
    inits = [one for one in status.get("initContainerStatuses") or [] if not _is_done(pod, one)]
    late = [one for one in inits if has_begun and _is_native_sidecar(pod, one)]
    yield from (one for one in inits if one not in late)
    yield from sorted(status.get("containerStatuses") or [], key=lambda one: one.get("name") != kube.CONTAINER)
    # The kubelet stops them after the other containers, so their ends say nothing of an ended Pod.
    yield from (one for one in late if not has_ended(pod))


def _is_done(pod: KubeObject, status: KubeObject) -> bool:
    """Whether an init container no longer holds the Pod back: it has exited with 0, or it is a started sidecar."""
    state = status.get("state") or {}
    if _is_native_sidecar(pod, status):
        return "running" in state and bool(status.get("started"))
    return (state.get("terminated") or {}).get("exitCode") == 0


def _is_native_sidecar(pod: KubeObject, status: KubeObject) -> bool:
    """Whether it is an init container with restartPolicy Always."""
    specs = pod["spec"].get("initContainers") or []
    return any(one["name"] == status.get("name") and one.get("restartPolicy") == "Always" for one in specs)


def _of_container(pod: KubeObject, status: KubeObject) -> Trouble | None:
    """Return why the container is not running, or None if it is."""
    state = status.get("state") or {}
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if terminated is not None:
        return _ended(status, terminated)
    return _of_running_init(pod, status) if waiting is None else _waits(status, waiting)


def _of_running_init(pod: KubeObject, status: KubeObject) -> Trouble | None:
    """Return what an init container does that the Pod waits for, or None for another container."""
    name = status.get("name")
    if status not in ((pod.get("status") or {}).get("initContainerStatuses") or []):
        return None
    if not _is_native_sidecar(pod, status):
        return Trouble("PodInitializing", f"the init container {name} is still running", name)
    if status.get("started"):
        return None
    # The kubelet starts no further container until then (record: pod-native-sidecar-not-started).
    return Trouble("NotReady", f"the sidecar {name} runs, but its startup probe has not passed yet", name)


def _waits(status: KubeObject, waiting: KubeObject) -> Trouble:
    name, reason = status.get("name"), waiting.get("reason") or "ContainerCreating"
    last = _terminated(status)
    if reason != "CrashLoopBackOff" or last is None:
        return Trouble(reason, shortened(waiting.get("message")), name)
    ended = _ended(status, last)
    if ended.reason not in PLAIN_ENDS:
        return ended
    message = "; ".join(part for part in (ended.message, waiting.get("message")) if part)
    return Trouble(reason, shortened(message), name, ended.exit_code)


def _ended(status: KubeObject, terminated: KubeObject) -> Trouble:
    code = terminated.get("exitCode")
    reason = terminated.get("reason") or ("Completed" if code == 0 else "Error")
    message = f"container {status.get('name')} ended with exit code {code}"
    said = (terminated.get("message") or "").strip()
    return Trouble(reason, shortened(f"{message}: {said}" if said else message), status.get("name"), code)


def _terminated(status: KubeObject) -> KubeObject | None:
    """Return the current `terminated` state, else the last one; None if the container never terminated."""
    for state in (status.get("state"), status.get("lastState")):
        terminated: KubeObject | None = (state or {}).get("terminated")
        if terminated is not None:
            return terminated
    return None


def _not_ready(pod: KubeObject, ready: KubeObject) -> Trouble:
    """Return the trouble of a Pod whose containers report none."""
    if has_ended(pod):  # before any container started
        return Trouble(ready.get("reason") or pod["status"]["phase"], shortened(ready.get("message")))
    if not (pod.get("status") or {}).get("containerStatuses"):
        return Trouble("Pending", f"node {pod['spec'].get('nodeName')} has not started it yet")
    # ContainersNotReady is only a symptom; others, such as ReadinessGatesNotReady, are causes.
    reason = ready.get("reason") or ""
    if reason not in ("", "ContainersNotReady"):
        return Trouble(reason, shortened(ready.get("message")))
    unready = _unready(pod)
    said = ready.get("message") or (f"not ready: {', '.join(unready)}" if unready else None)
    return Trouble("NotReady", shortened(said), next(iter(unready), None))


def _unready(pod: KubeObject) -> list[str]:
    """Return the names of the containers that are not ready, the sandbox container's first, native sidecars' last."""
    status = pod.get("status") or {}
    inits = [one for one in status.get("initContainerStatuses") or [] if _is_native_sidecar(pod, one)]
    containers = sorted(status.get("containerStatuses") or [], key=lambda one: one.get("name") != kube.CONTAINER)
    return [one.get("name", "") for one in (*containers, *inits) if not one.get("ready")]


_PHASES: dict[str, Status] = {word: word for word in get_args(Status) if word != "NotFound"}


def status_of(pod: KubeObject) -> Status:
    """Return the status of a Pod; NotFound while it is being deleted.

    A sandbox is its container `sandbox`: once that has ended for good, the status is how it ended, although the Pod
    has the phase Running as long as a sidecar runs (record: pod-never-sidecar-exit-0).
    """
    if kube.is_terminating(pod):
        return "NotFound"
    if is_on_lost_node(pod):
        return "Unknown"
    outcome = outcome_of(pod)
    if outcome is not None:
        return outcome
    if _is_crash_looping(pod):
        return "Failed"
    # A newly stored Pod has no phase yet.
    return _PHASES.get((pod.get("status") or {}).get("phase", "Pending"), "Unknown")


def is_on_lost_node(pod: KubeObject) -> bool:
    """Whether the control plane considers the Pod's node lost: no heartbeat for 40 s by default.

    The node controller then sets only Ready to False (Kubernetes' MarkPodsNotReady) and keeps the kubelet's last
    status. A kubelet itself reports ready containers in a Pod that is not ready only for readiness gates, with a
    reason. Older versions of Kubernetes set the Pod's reason to NodeLost.
    """
    status = pod.get("status") or {}
    if status.get("reason") == "NodeLost":
        return True
    ready, containers = kube.condition_of(pod, "Ready"), kube.condition_of(pod, "ContainersReady")
    is_ready, are_ready = ready.get("status"), containers.get("status")
    return status.get("phase") == "Running" and (is_ready, are_ready) == ("False", "True") and not ready.get("reason")


def has_ended(pod: KubeObject) -> bool:
    """Whether the sandbox container has terminated, or can't start, and will not be started again."""
    return outcome_of(pod) is not None


def outcome_of(pod: KubeObject) -> Literal["Failed", "Succeeded"] | None:
    """Return how the sandbox ended for good: the Pod's final phase, else by its sandbox container; None if it did not.

    An init container that failed for good ends it, too: the sandbox container will not start.
    """
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Failed", "Succeeded"):
        return "Failed" if phase == "Failed" else "Succeeded"
    state = kube.sandbox_container_status(pod).get("state") or {}
    if is_over(pod, kube.CONTAINER):
        return "Succeeded" if state["terminated"].get("exitCode") == 0 else "Failed"
    if not {"running", "terminated"} & {*state} and any(
        is_over(pod, one["name"]) and not _is_done(pod, one)
        for one in (pod.get("status") or {}).get("initContainerStatuses") or []
    ):
        return "Failed"
    return None


def _is_crash_looping(pod: KubeObject) -> bool:
    waiting = (kube.sandbox_container_status(pod).get("state") or {}).get("waiting") or {}
    return bool(waiting.get("reason") == "CrashLoopBackOff")
