"""(Pod, Service) → what a caller is told, the URL included. Pure, but for the answers that are kept.

A caller adopts any 200 as usable (contract.md). So a Pod that is gone, or going, or without a way in, is no sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.expiry import expires_at
from sandboxes.models.responses import SandboxResponse
from sandboxes.status.reasons import readiness_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def answer_for(
    pod: KubeObject | None, service: KubeObject | None, settings: Settings, *, used: datetime | None = None
) -> SandboxResponse | None:
    """Return what a caller is told of a sandbox, or None where the answer is "not found".

    `used`: a use of it that its Pod does not know of yet.
    """
    if pod is None or service is None:
        return None
    sandbox_id = kube.sandbox_id_of(pod)
    if sandbox_id is None or sandbox_id != kube.sandbox_id_of(service):
        return None
    if kube.is_terminating(pod) or kube.is_terminating(service):
        return None
    url = sandbox_url(service, settings)
    if url is None:
        return None
    annotations = kube.get_annotations(pod)
    ready, reason, message = readiness_of(pod)
    return SandboxResponse(
        sandbox_id=sandbox_id,
        sandbox_url=url,
        status=status_of(pod),
        ready=ready,
        reason=reason,
        message=message,
        created_at=pod["metadata"]["creationTimestamp"],
        expires_at=expires_at(pod, used),
        thread_id=annotations.get(kube.THREAD_ANNOTATION),
        user_id=annotations.get(kube.USER_ANNOTATION),
        template=annotations.get(kube.TEMPLATE_ANNOTATION),
        image=kube.sandbox_container(pod).get("image", ""),
        node=pod["spec"].get("nodeName"),
    )


def is_whole(pod: KubeObject, service: KubeObject, settings: Settings) -> bool:
    """Whether a caller would be told of this sandbox."""
    return answer_for(pod, service, settings) is not None


def answers_for(objects: Iterable[KubeObject], settings: Settings) -> list[SandboxResponse]:
    """Return, sorted by id, what `answer_for` says of each sandbox among `objects` (Pods and Services)."""
    by_name = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    answers = (
        answer_for(pod, by_name.get(("Service", kube.service_name_beside(name))), settings)
        for (kind, name), pod in by_name.items()
        if kind == "Pod"
    )
    return _sorted(answers)


class Answers:
    """What callers are told, kept for as long as the objects are the same: it is asked for more than it changes.

    Whoever holds the objects says `forget` when one of them goes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: dict[str, tuple[KubeObject, KubeObject, SandboxResponse | None]] = {}

    def of(self, pod: KubeObject | None, service: KubeObject | None) -> SandboxResponse | None:
        """See answer_for."""
        if pod is None or service is None:
            return None
        name = pod["metadata"]["name"]
        kept = self._kept.get(name)
        if kept is None or kept[0] is not pod or kept[1] is not service:
            kept = self._kept[name] = (pod, service, answer_for(pod, service, self._settings))
        return kept[2]

    def of_all(self, pairs: Iterable[tuple[KubeObject, KubeObject]]) -> list[SandboxResponse]:
        """Return, sorted by id, what `of` says of each (Pod, Service)."""
        return _sorted(self.of(pod, service) for pod, service in pairs)

    def forget(self, kind: str, name: str) -> None:
        """Drop what was kept for the object of this kind and name: it changed, or is gone."""
        if kind == "Pod":
            self._kept.pop(name, None)


def _sorted(answers: Iterable[SandboxResponse | None]) -> list[SandboxResponse]:
    return sorted((one for one in answers if one is not None), key=lambda answer: answer.sandbox_id)


def sandbox_url(service: KubeObject, settings: Settings) -> str | None:
    """Return the URL, or None while (or if) the Service gives no way in of the configured kind."""
    ports = service["spec"].get("ports") or []
    port: KubeObject = next((one for one in ports if one.get("name") == kube.PORT_NAME), {})
    if settings.sandbox_service_type == "ClusterIP":
        # The port that it has, and not the one of today's settings: the sandbox may be older.
        metadata, number = service["metadata"], port.get("port")
        return f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local:{number}" if number else None
    host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
    return f"http://{host}:{port['nodePort']}" if port.get("nodePort") else None
