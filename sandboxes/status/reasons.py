"""Pod → its status word, whether it is ready, and why not. Pure.

What only Events say of a Pod (`FailedMount`) is in `cause_in`. The words are Kubernetes' own; where it has none for
what a status says, they are `Pending`, `ContainerCreating` and `NotReady`, which people know from kubectl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from sandboxes import objects as kube
from sandboxes.models.responses import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxes.objects import KubeObject


# Reasons after which a Pod does not become ready by itself, or only by luck.
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

# A message is for a person: a container may have written one of 4096 bytes (terminationMessagePath).
MAX_MESSAGE = 1000

# Waiting for these is no trouble of a container's own: something else has to happen first.
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})
# What a termination is called when it has no cause of its own to tell.
_PLAIN_ENDS = frozenset({"Error", "Completed"})
# Reasons that say little: the Events may say more.
VAGUE = frozenset({"Pending", "NotReady", *_BEGINNING})

# Warnings that are the cause of a vague reason, by the `reason` of the Event.
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
# Steps on the way of a Pod: what was said before them is overcome.
_STEPS = frozenset({"Scheduled", "Pulling", "Pulled", "Created", "Started"})


@dataclass(frozen=True)
class Trouble:
    """Why a Pod is not ready. `container` is the name of the one to blame, None where it is the Pod as a whole.

    `exit_code` is that of the container's termination, if one is to blame.
    """

    reason: str
    message: str | None
    container: str | None = None
    exit_code: int | None = None


def readiness_of(pod: KubeObject) -> tuple[bool, str | None, str | None]:
    """Return whether the Pod is ready, and else the reason and the message for which it is not."""
    trouble = trouble_of(pod)
    return (True, None, None) if trouble is None else (False, trouble.reason, trouble.message)


def trouble_of(pod: KubeObject) -> Trouble | None:
    """Return why the Pod is not ready; None for one that is: its Ready condition is True and it has not ended.

    The cause goes before the symptom: what befell the Pod as a whole, then that it has no node, then the first of its
    init containers, of its sandbox container and of its other containers that can't run.
    """
    ready = kube.condition_of(pod, "Ready")
    if ready.get("status") == "True" and not has_ended(pod):
        return None
    return of_pod_as_a_whole(pod) or _unscheduled(pod) or _of_containers(pod) or _not_ready(pod, ready)


def of_pod_as_a_whole(pod: KubeObject) -> Trouble | None:
    """Return what befell the Pod itself: Evicted, NodeNotReady, DeadlineExceeded, a preemption; None if nothing did."""
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
    """Return how the sandbox container ended last, as Kubernetes has it; None if it never did."""
    return _terminated(kube.sandbox_container_status(pod))


def cause_in(events: Iterable[KubeObject]) -> Trouble | None:
    """Return what a Pod's Events, oldest first, say of why it does not get on; None if they say nothing of it.

    For a Pod whose status has only a vague reason: one that is not mounted is `ContainerCreating` for ever.
    """
    for event in reversed([*events]):
        if event.get("reason") in _STEPS:
            return None
        if event.get("type") == "Warning" and event.get("reason") in _CAUSES:
            return Trouble(event["reason"], shortened(event.get("message")))
    return None


def shortened(text: str | None) -> str | None:
    """Return at most MAX_MESSAGE characters of a text, and None for an empty one."""
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
    """Return the first trouble of a container's own, else the first of those for which nothing has gone wrong."""
    troubles = [trouble for status in _in_order(pod) if (trouble := _of_container(pod, status))]
    own = (one for one in troubles if one.reason not in _BEGINNING and one.reason != "Completed")
    return next(own, next(iter(troubles), None))


def _in_order(pod: KubeObject) -> Iterator[KubeObject]:
    status = pod.get("status") or {}
    # The sandbox's own container before its sidecars.
    containers = sorted(status.get("containerStatuses") or [], key=lambda one: one.get("name") != kube.CONTAINER)
    yield from (one for one in status.get("initContainerStatuses") or [] if not _is_done(pod, one))
    yield from containers


def _is_done(pod: KubeObject, status: KubeObject) -> bool:
    """Whether an init container has done its part: ended well, or, for a sidecar, started and ready."""
    state = status.get("state") or {}
    if _is_sidecar(pod, status):
        return bool(status.get("started") and status.get("ready"))
    return "terminated" in state and state["terminated"].get("exitCode") == 0


def _is_sidecar(pod: KubeObject, status: KubeObject) -> bool:
    """Whether it is an init container that runs beside the others (restartPolicy Always)."""
    specs = pod["spec"].get("initContainers") or []
    return any(one["name"] == status.get("name") and one.get("restartPolicy") == "Always" for one in specs)


def _of_container(pod: KubeObject, status: KubeObject) -> Trouble | None:
    """Return what keeps one container from running; None for one that runs."""
    name, state = status.get("name"), status.get("state") or {}
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if terminated is not None:
        return _ended(status, terminated)
    if waiting is None:
        inits = (pod.get("status") or {}).get("initContainerStatuses") or []
        if status in inits:
            return Trouble("PodInitializing", f"the init container {name} is still at work", name)
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
    """Return a container's last termination, be it over that one or not."""
    for state in (status.get("state"), status.get("lastState")):
        terminated: KubeObject | None = (state or {}).get("terminated")
        if terminated is not None:
            return terminated
    return None


def _not_ready(pod: KubeObject, ready: KubeObject) -> Trouble:
    """Return what is left to say when nothing keeps the containers from running."""
    if has_ended(pod):  # as a Pod that no node has ever run
        return Trouble(ready.get("reason") or pod["status"]["phase"], shortened(ready.get("message")))
    if not (pod.get("status") or {}).get("containerStatuses"):
        return Trouble("Pending", f"node {pod['spec'].get('nodeName')} has not begun with it yet")
    # ContainersNotReady names the symptom; ReadinessGatesNotReady, say, is a cause.
    reason = ready.get("reason") or ""
    return Trouble("NotReady" if reason in ("", "ContainersNotReady") else reason, shortened(ready.get("message")))


_PHASES: dict[str, Status] = {word: word for word in get_args(Status) if word != "NotFound"}


def status_of(pod: KubeObject) -> Status:
    """Return the word for a Pod."""
    if kube.is_terminating(pod):
        return "NotFound"
    if is_on_lost_node(pod):
        return "Unknown"
    if has_ended(pod) or not _is_crash_looping(pod):
        # A Pod that was stored a moment ago has no phase yet.
        return _PHASES.get((pod.get("status") or {}).get("phase", "Pending"), "Unknown")
    return "Failed"


def is_on_lost_node(pod: KubeObject) -> bool:
    """Whether the control plane has given up on the Pod's node, which has not answered for a while (40 s by default).

    It then sets Ready to False and leaves all else as the kubelet last said it (Kubernetes' MarkPodsNotReady). A
    kubelet never says of ready containers that their Pod is not, but for readiness gates, and then with a reason.
    Older versions of Kubernetes gave the Pod the reason NodeLost.
    """
    status = pod.get("status") or {}
    if status.get("reason") == "NodeLost":
        return True
    ready, containers = kube.condition_of(pod, "Ready"), kube.condition_of(pod, "ContainersReady")
    is_ready, are_ready = ready.get("status"), containers.get("status")
    return status.get("phase") == "Running" and (is_ready, are_ready) == ("False", "True") and not ready.get("reason")


def has_ended(pod: KubeObject) -> bool:
    """Whether the Pod's containers have all ended and won't start again."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _is_crash_looping(pod: KubeObject) -> bool:
    waiting = (kube.sandbox_container_status(pod).get("state") or {}).get("waiting") or {}
    return bool(waiting.get("reason") == "CrashLoopBackOff")
