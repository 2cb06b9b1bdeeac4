"""Pod → the word that says how it is. Pure.

The six words are the contract: a caller treats a sandbox as alive only when it reads exactly `Running`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sandboxes import objects as kube
from sandboxes.models.requests import Status

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject

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
