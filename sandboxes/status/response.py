"""Builds a sandbox's response, URL included, from its Pod and Service. Pure, except for the cache in Answers.

Callers treat any 200 as usable. So a sandbox whose Pod is missing or terminating, or that has no URL, is
not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.expiry import expires_at
from sandboxes.models.responses import Reconciliation, SandboxResponse
from sandboxes.status.reasons import readiness_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def answer_for(
    pod: KubeObject | None, service: KubeObject | None, settings: Settings, *, used: datetime | None = None
) -> SandboxResponse | None:
    """Return the response for a sandbox, or None for "not found".

    `used`: time of a use that is not yet in the Pod's annotations; it postpones `expires_at`.
    """
    if pod is None or service is None:
        return None
    sandbox_id = kube.sandbox_id_of(pod)
    if sandbox_id is None or sandbox_id != kube.sandbox_id_of(service):
        return None
    if kube.is_terminating(pod) or kube.is_terminating(service):
        return None
    url = sandbox_url(service, settings, pod)
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
        cluster=settings.cluster,
    )


def reconciliation_for(
    sandbox_id: str, pod: KubeObject | None, service: KubeObject | None, settings: Settings
) -> Reconciliation:
    """Return which Pod the sandbox has.

    The caller cleans up by it. So only the Pod decides, also one that answer_for does not show: while it is there, its
    volumes may be in use.
    """
    if pod is None or kube.sandbox_id_of(pod) != sandbox_id:
        pod = service = None
    if service is not None and kube.sandbox_id_of(service) != sandbox_id:
        service = None
    annotations = kube.get_annotations(pod) if pod else {}
    return Reconciliation(
        sandbox_id=sandbox_id,
        status="found" if pod else "absent",
        backend_namespace=settings.k8s_namespace,
        incarnation_id=pod["metadata"]["uid"] if pod else None,
        sandbox_url=sandbox_url(service, settings, pod) if service else None,
        thread_id=annotations.get(kube.THREAD_ANNOTATION),
        user_id=annotations.get(kube.USER_ANNOTATION),
    )


def is_whole(pod: KubeObject, service: KubeObject, settings: Settings) -> bool:
    """Whether the Pod and the Service make a sandbox that callers can see and reach; see answer_for.

    A Service may lead to a port that its Pod does not have: two replicas with different settings made one object each.
    """
    port = kube.sandbox_port(service, pod, settings.sandbox_container_port)
    return port is not None and kube.leads_to(pod, port) and answer_for(pod, service, settings) is not None


def answers_for(objects: Iterable[KubeObject], settings: Settings) -> list[SandboxResponse]:
    """Return the responses for all sandboxes among `objects` (Pods and Services), sorted by id."""
    by_name = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    answers = (
        answer_for(pod, by_name.get(("Service", kube.service_name_beside(name))), settings)
        for (kind, name), pod in by_name.items()
        if kind == "Pod"
    )
    return _sorted(answers)


class Answers:
    """Caches responses by Pod name for as long as both objects are unchanged; reads outnumber changes.

    The owner of the objects must call `forget` when one changes or is deleted.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: dict[str, tuple[KubeObject, KubeObject, SandboxResponse | None]] = {}

    def of(self, pod: KubeObject | None, service: KubeObject | None) -> SandboxResponse | None:
        """Return the response for a sandbox, or None for "not found"; see answer_for."""
        if pod is None or service is None:
            return None
        name = pod["metadata"]["name"]
        kept = self._kept.get(name)
        if kept is None or kept[0] is not pod or kept[1] is not service:
            kept = self._kept[name] = (pod, service, answer_for(pod, service, self._settings))
        return kept[2]

    def of_all(self, pairs: Iterable[tuple[KubeObject, KubeObject]]) -> list[SandboxResponse]:
        """Return the responses for all (Pod, Service) pairs, sorted by id."""
        return _sorted(self.of(pod, service) for pod, service in pairs)

    def forget(self, kind: str, name: str) -> None:
        """Drop the cached response of the object that changed or was deleted."""
        if kind == "Pod":
            self._kept.pop(name, None)


def _sorted(answers: Iterable[SandboxResponse | None]) -> list[SandboxResponse]:
    return sorted((one for one in answers if one is not None), key=lambda answer: answer.sandbox_id)


def sandbox_url(service: KubeObject, settings: Settings, pod: KubeObject | None = None) -> str | None:
    """Return the sandbox's URL, or None if the Service has no port of the configured type (yet).

    The port is the one that the Service has, whatever today's settings say; see `kube.sandbox_port`. The name of a
    headless Service resolves to the Pod's address, so there it is the port that the Pod listens on.
    """
    port = kube.sandbox_port(service, pod, settings.sandbox_container_port)
    if port is None or service["spec"].get("type") == "ExternalName":
        return None
    if settings.sandbox_service_type == "ClusterIP":
        metadata, number = service["metadata"], port.get("port")
        if kube.is_headless(service):
            number = kube.target_of(pod, port.get("targetPort", number))
        host = f"{metadata['name']}.{metadata['namespace']}.svc.{settings.cluster_domain}"
        return f"http://{host}:{number}" if number else None
    host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
    return f"http://{host}:{port['nodePort']}" if port.get("nodePort") else None
