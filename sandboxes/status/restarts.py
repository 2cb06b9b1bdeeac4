"""Decides whether the kubelet will start a container again. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject


def is_over(pod: KubeObject, name: str) -> bool:
    """Whether this container is terminated and will not be started again, by its restartPolicy and its Pod's."""
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ended = next(((one.get("state") or {}).get("terminated") for one in statuses if one.get("name") == name), None)
    return ended is not None and not is_restarted(pod, name, ended.get("exitCode"))


def is_restarted(pod: KubeObject, name: str, exit_code: int | None) -> bool:
    """Whether the kubelet starts this container again after it exited with this code.

    A container's own restartPolicyRules go before its restartPolicy, and that before the Pod's.
    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
    """
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    specs = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    spec: KubeObject = next((one for one in specs if one["name"] == name), {})
    for rule in spec.get("restartPolicyRules") or []:
        codes = rule.get("exitCodes") or {}
        if (exit_code in (codes.get("values") or [])) == (codes.get("operator") == "In"):
            return True  # all actions start the container again
    policy = spec.get("restartPolicy") or pod["spec"].get("restartPolicy", "Always")
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))
