"""(Pod, Service) → what a caller is told. Pure.

The six words are the contract: a caller treats a sandbox as alive only when it reads exactly `Running`, and
adopts any 200 as usable. So a Pod that is gone, or going, or without a way in, is no sandbox at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sandboxes import kube
from sandboxes.access import sandbox_url
from sandboxes.models import SandboxAnswer, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.kube import KubeObject
    from sandboxes.settings import Settings

_PHASES: dict[str, Status] = {word: word for word in get_args(Status) if word != "NotFound"}


def status_of(pod: KubeObject) -> Status:
    """Return the word for a Pod."""
    if kube.is_terminating(pod):
        return "NotFound"
    status = pod.get("status") or {}
    # NodeLost: what Kubernetes writes into a Pod whose node stopped answering.
    if status.get("reason") == "NodeLost":
        return "Unknown"
    if has_ended(pod) or not _is_crash_looping(status):
        # A Pod that was stored a moment ago has no phase yet.
        return _PHASES.get(status.get("phase", "Pending"), "Unknown")
    return "Failed"


def has_ended(pod: KubeObject) -> bool:
    """Whether the Pod's containers have all ended and won't start again."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _is_crash_looping(status: KubeObject) -> bool:
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if container.get("name") == kube.CONTAINER and waiting.get("reason") == "CrashLoopBackOff":
            return True
    return False


def answer_for(pod: KubeObject | None, service: KubeObject | None, settings: Settings) -> SandboxAnswer | None:
    """Return what a caller is told of a sandbox, or None where the answer is "not found"."""
    if pod is None or service is None:
        return None
    sandbox_id = kube.sandbox_id_of(pod)
    if sandbox_id is None or sandbox_id != kube.sandbox_id_of(service):
        return None
    return _answer(sandbox_id, pod, service, settings)


def answers_for(objects: Iterable[KubeObject], settings: Settings) -> list[SandboxAnswer]:
    """Return, sorted by id, what `answer_for` says of each sandbox among `objects` (Pods and Services)."""
    pods: dict[str, KubeObject] = {}
    services: dict[str, KubeObject] = {}
    for obj in objects:
        sandbox_id = kube.sandbox_id_of(obj)
        if sandbox_id is not None:
            (pods if obj["kind"] == "Pod" else services)[sandbox_id] = obj
    answers = (_answer(one, pods[one], services[one], settings) for one in sorted(pods.keys() & services.keys()))
    return [answer for answer in answers if answer is not None]


def _answer(sandbox_id: str, pod: KubeObject, service: KubeObject, settings: Settings) -> SandboxAnswer | None:
    if kube.is_terminating(pod) or kube.is_terminating(service):
        return None
    url = sandbox_url(service, settings)
    if url is None:
        return None
    return SandboxAnswer(sandbox_id=sandbox_id, sandbox_url=url, status=status_of(pod))
