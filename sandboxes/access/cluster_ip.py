"""Access from inside the cluster, by the name of the sandbox's Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.access.services import ServiceAccess

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject


class ClusterIPAccess(ServiceAccess):
    """By `http://SERVICE.NAMESPACE.svc.CLUSTER_DOMAIN:PORT`; see Access.

    The name of a headless Service resolves to the Pod's address, so there it is the port that the Pod listens on.
    """

    def _url_by(self, port: KubeObject, service: KubeObject, pod: KubeObject | None) -> str | None:
        metadata, number = service["metadata"], port.get("port")
        if kube.is_headless(service):
            number = kube.target_of(pod, port.get("targetPort", number))
        host = f"{metadata['name']}.{metadata['namespace']}.svc.{self._settings.cluster_domain}"
        return f"http://{host}:{number}" if number else None
