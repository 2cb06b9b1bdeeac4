"""Builds a sandbox's response, URL included, from its Pod and its Service, if any.

Pure, except for the cache in Answers, and the keys of the gateway, which may come from a file that changes.

Callers treat any 200 as usable. So a sandbox whose Pod is missing or terminating, or that has no URL, is
not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.expiry import expires_at
from sandboxes.models.responses import Reconciliation, SandboxResponse
from sandboxes.status.reasons import readiness_of, status_of
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sandboxes.access.accesses import Accesses
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def answer_for(
    pod: KubeObject | None, service: KubeObject | None, accesses: Accesses, *, used: datetime | None = None
) -> SandboxResponse | None:
    """Return the response for a sandbox, or None for "not found".

    `used`: time of a use that is not yet in the Pod's annotations; it postpones `expires_at`.
    """
    sandbox_id = None if pod is None else kube.sandbox_id_of(pod)
    if pod is None or sandbox_id is None:
        return None
    access = accesses.of(pod, service)
    url = access.url(pod, service) if access.is_complete(pod, service) else None
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
        cluster=accesses.settings.cluster,
    )


def reconciliation_for(
    sandbox_id: str, pod: KubeObject | None, service: KubeObject | None, accesses: Accesses
) -> Reconciliation:
    """Return which Pod the sandbox has.

    The caller cleans up by it. So only the Pod decides, also one that answer_for does not show: while it is there, its
    volumes may be in use.
    """
    if pod is None or kube.sandbox_id_of(pod) != sandbox_id:
        return reconciliation_of_none(sandbox_id, accesses.settings)
    if service is not None and kube.sandbox_id_of(service) != sandbox_id:
        service = None
    annotations = kube.get_annotations(pod)
    return Reconciliation(
        sandbox_id=sandbox_id,
        status="found",
        backend_namespace=accesses.settings.k8s_namespace,
        incarnation_id=pod["metadata"]["uid"],
        sandbox_url=accesses.of(pod, service).url(pod, service),
        thread_id=annotations.get(kube.THREAD_ANNOTATION),
        user_id=annotations.get(kube.USER_ANNOTATION),
    )


def reconciliation_of_none(sandbox_id: str, settings: Settings) -> Reconciliation:
    """Return that there is no Pod of the sandbox."""
    return Reconciliation(
        sandbox_id=sandbox_id,
        status="absent",
        backend_namespace=settings.k8s_namespace,
        incarnation_id=None,
        sandbox_url=None,
        thread_id=None,
        user_id=None,
    )


def answers_for(objects: Iterable[KubeObject], accesses: Accesses) -> list[SandboxResponse]:
    """Return the responses for all sandboxes among `objects` (Pods and Services), sorted by id."""
    by_name = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    answers = (
        answer_for(pod, by_name.get(("Service", kube.service_name_beside(name))), accesses)
        for (kind, name), pod in by_name.items()
        if kind == "Pod"
    )
    return _sorted(answers)


class Answers:
    """Caches responses by Pod name for as long as both objects are unchanged; reads outnumber changes.

    The owner of the objects must call `forget` when one changes or is deleted. With another signing key of the gateway,
    no response is kept.
    """

    def __init__(self, accesses: Accesses) -> None:
        self._accesses = accesses
        self._kept: dict[str, tuple[KubeObject, KubeObject | None, SandboxResponse | None]] = {}
        self._key = accesses.signing_key()
        # Sent when the signing key has changed.
        self.rotated: Signal[[]] = Signal()

    def of(self, pod: KubeObject | None, service: KubeObject | None) -> SandboxResponse | None:
        """Return the response for a sandbox, or None for "not found"; see answer_for."""
        self.refresh()
        return None if pod is None else self._of(pod, service)

    def of_all(self, pairs: Iterable[tuple[KubeObject, KubeObject | None]]) -> list[SandboxResponse]:
        """Return the responses for all (Pod, Service or None) pairs, sorted by id."""
        self.refresh()
        return _sorted(self._of(pod, service) for pod, service in pairs)

    def refresh(self) -> None:
        """Drop all responses if the signing key has changed."""
        key = self._accesses.signing_key()
        if key != self._key:
            self._key = key
            self._kept.clear()
            self.rotated.send()

    def _of(self, pod: KubeObject, service: KubeObject | None) -> SandboxResponse | None:
        name = pod["metadata"]["name"]
        kept = self._kept.get(name)
        if kept is None or kept[0] is not pod or kept[1] is not service:
            kept = self._kept[name] = (pod, service, answer_for(pod, service, self._accesses))
        return kept[2]

    def forget(self, kind: str, name: str) -> None:
        """Drop the cached response of the object that changed or was deleted."""
        if kind == "Pod":
            self._kept.pop(name, None)


def _sorted(answers: Iterable[SandboxResponse | None]) -> list[SandboxResponse]:
    return sorted((one for one in answers if one is not None), key=lambda answer: answer.sandbox_id)
