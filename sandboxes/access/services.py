"""Access by a Service of the sandbox's own; each type of Service has another URL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


class ServiceAccess(ABC):
    """What the accesses by a Service have in common; see Access."""

    needs_service = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def is_complete(self, pod: KubeObject, service: KubeObject | None) -> bool:
        """Whether the Pod and its Service are there, and none is being deleted."""
        sandbox_id = kube.sandbox_id_of(pod)
        if service is None or sandbox_id is None or sandbox_id != kube.sandbox_id_of(service):
            return False
        return not (kube.is_terminating(pod) or kube.is_terminating(service))

    def is_whole(self, pod: KubeObject, service: KubeObject | None) -> bool:
        """Whether the Pod and the Service make a sandbox that callers can see and reach.

        A Service may lead to a port that its Pod does not have: two replicas with different settings made one object
        each.
        """
        if service is None or not self.is_complete(pod, service):
            return False
        port = kube.sandbox_port(service, pod, self._settings.sandbox_container_port)
        return port is not None and kube.leads_to(pod, port) and self.url(pod, service) is not None

    def url(self, pod: KubeObject | None, service: KubeObject | None) -> str | None:
        """Return the sandbox's URL, or None if the Service is missing or has no port of the configured type (yet).

        The port is the one that the Service has, whatever today's settings say; see `kube.sandbox_port`.
        """
        if service is None or service["spec"].get("type") == "ExternalName":
            return None
        port = kube.sandbox_port(service, pod, self._settings.sandbox_container_port)
        return None if port is None else self._url_by(port, service, pod)

    def probed_url(self, pod: KubeObject, service: KubeObject | None) -> str | None:
        """Return the URL that callers use."""
        return self.url(pod, service)

    @abstractmethod
    def _url_by(self, port: KubeObject, service: KubeObject, pod: KubeObject | None) -> str | None:
        """Return the URL by this port of the Service."""
