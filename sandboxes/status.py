"""Pod → the word that says how it is. Pure.

The six words are the contract: a caller treats a sandbox as alive only when it reads exactly `Running`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sandboxes import kube
from sandboxes.models import Status

if TYPE_CHECKING:
    from sandboxes.kube import KubeObject

_PHASES: dict[str, Status] = {word: word for word in get_args(Status) if word != "NotFound"}


def status_of(pod: KubeObject) -> Status:
    """Return the word for a Pod."""
    if kube.is_terminating(pod):
        return "NotFound"
    status = pod.get("status") or {}
    # NodeLost: what Kubernetes writes into a Pod whose node stopped answering.
    if status.get("reason") == "NodeLost":
        return "Unknown"
    if has_ended(pod) or not _is_crash_looping(pod):
        # A Pod that was stored a moment ago has no phase yet.
        return _PHASES.get(status.get("phase", "Pending"), "Unknown")
    return "Failed"


def has_ended(pod: KubeObject) -> bool:
    """Whether the Pod's containers have all ended and won't start again."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _is_crash_looping(pod: KubeObject) -> bool:
    waiting = (kube.sandbox_container_status(pod).get("state") or {}).get("waiting") or {}
    return bool(waiting.get("reason") == "CrashLoopBackOff")
