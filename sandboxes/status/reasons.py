"""Derives a Pod's status, its readiness and the reason why it is not ready. Pure.

Reasons are Kubernetes' own. Where a Pod's status has none, they are kubectl's `Pending`, `ContainerCreating` and
`NotReady`. `cause_in` finds those that only Events report, such as `FailedMount`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from sandboxes import objects as kube
from sandboxes.models.responses import Status

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
_PLAIN_ENDS = frozenset({"Error", "Completed"})
# Unspecific reasons; the Events may name the cause.
VAGUE = frozenset({"Pending", "NotReady", *_BEGINNING})

# Reasons of Warning Events that explain a vague reason.
_CAUSES = frozenset(
    {
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedCreatePodSandBox",
        "FailedCreatePodContainer",
        "NetworkNotReady",
        "FailedScheduling",
        "NodeNotReady",
        "Unhealthy",
    }
)
# Event reasons that show progress: Warnings before them no longer apply.
_STEPS = frozenset({"Scheduled", "Pulling", "Pulled", "Created", "Started"})


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

    Causes go before symptoms: a failure of the whole Pod, then scheduling, then the first container that can't run, in
    the order init containers, sandbox container, sidecars.
    """
    ready = kube.condition_of(pod, "Ready")
    if ready.get("status") == "True" and not has_ended(pod):
        return None
    return of_pod_as_a_whole(pod) or _unscheduled(pod) or _of_containers(pod) or _not_ready(pod, ready)


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


def last_termination(pod: KubeObject) -> KubeObject | None:
    """Return the sandbox container's last `terminated` state, or None if it never terminated."""
    return _terminated(kube.sandbox_container_status(pod))


def cause_in(events: Iterable[KubeObject]) -> Trouble | None:
    """Return the cause that a Pod's Events name, or None. `events` are sorted oldest first.

    Use it for a Pod with a VAGUE reason: a Pod whose volume can't be mounted stays `ContainerCreating`.
    """
    for event in reversed([*events]):
        if event.get("reason") in _STEPS:
            return None
        if event.get("type") == "Warning" and event.get("reason") in _CAUSES:
            return Trouble(event["reason"], shortened(event.get("message")))
    return None


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


def _of_containers(pod: KubeObject) -> Trouble | None:
    """Return the first container's failure, else the first container that waits or has completed."""
    troubles = [trouble for status in _in_order(pod) if (trouble := _of_container(pod, status))]
    own = (one for one in troubles if one.reason not in _BEGINNING and one.reason != "Completed")
    return next(own, next(iter(troubles), None))


def _in_order(pod: KubeObject) -> Iterator[KubeObject]:
    status = pod.get("status") or {}
    # The sandbox container before its sidecars.
    containers = sorted(status.get("containerStatuses") or [], key=lambda one: one.get("name") != kube.CONTAINER)
    yield from (one for one in status.get("initContainerStatuses") or [] if not _is_done(pod, one))
    yield from containers


def _is_done(pod: KubeObject, status: KubeObject) -> bool:
    """Whether an init container has exited with 0, or, for a sidecar, is started and ready."""
    state = status.get("state") or {}
    if _is_sidecar(pod, status):
        return bool(status.get("started") and status.get("ready"))
    return "terminated" in state and state["terminated"].get("exitCode") == 0


def _is_sidecar(pod: KubeObject, status: KubeObject) -> bool:
    """Whether it is a sidecar: an init container with restartPolicy Always."""
    specs = pod["spec"].get("initContainers") or []
    return any(one["name"] == status.get("name") and one.get("restartPolicy") == "Always" for one in specs)


def _of_container(pod: KubeObject, status: KubeObject) -> Trouble | None:
    """Return why the container is not running, or None if it is."""
    name, state = status.get("name"), status.get("state") or {}
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if terminated is not None:
        return _ended(status, terminated)
    if waiting is None:
        inits = (pod.get("status") or {}).get("initContainerStatuses") or []
        if status in inits:
            return Trouble("PodInitializing", f"the init container {name} is still running", name)
        return None
    reason = waiting.get("reason") or "ContainerCreating"
    last = _terminated(status)
    if reason != "CrashLoopBackOff" or last is None:
        return Trouble(reason, shortened(waiting.get("message")), name)
    ended = _ended(status, last)
    if ended.reason not in _PLAIN_ENDS:
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
    return Trouble("NotReady" if reason in ("", "ContainersNotReady") else reason, shortened(ready.get("message")))


_PHASES: dict[str, Status] = {word: word for word in get_args(Status) if word != "NotFound"}


def status_of(pod: KubeObject) -> Status:
    """Return the status of a Pod; NotFound while it is being deleted."""
    if kube.is_terminating(pod):
        return "NotFound"
    if is_on_lost_node(pod):
        return "Unknown"
    if has_ended(pod) or not _is_crash_looping(pod):
        # A newly stored Pod has no phase yet.
        return _PHASES.get((pod.get("status") or {}).get("phase", "Pending"), "Unknown")
    return "Failed"


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
    """Whether all containers have terminated and will not be restarted."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _is_crash_looping(pod: KubeObject) -> bool:
    waiting = (kube.sandbox_container_status(pod).get("state") or {}).get("waiting") or {}
    return bool(waiting.get("reason") == "CrashLoopBackOff")
