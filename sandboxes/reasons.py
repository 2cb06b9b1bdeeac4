"""Pod → whether it is ready, and why not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxes.kube import KubeObject


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
        "Evicted",
        "FailedMount",
    }
)


def readiness_of(pod: KubeObject) -> tuple[bool, str | None, str | None]:
    """Return whether the Pod is ready, and else the reason and the message for which it is not."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in HOPELESS:
            return False, waiting["reason"], waiting.get("message")
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            return condition.get("status") == "True", condition.get("reason"), condition.get("message")
    return False, None, None
