"""(Service, settings) → the URL under which a sandbox is reached. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.spec.manifests import SERVICE_PORT

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def sandbox_url(service: KubeObject, settings: Settings) -> str | None:
    """Return the URL, or None while (or if) the Service gives no way in of the configured kind."""
    if settings.sandbox_service_type == "ClusterIP":
        metadata = service["metadata"]
        return f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local:{SERVICE_PORT}"
    for port in service["spec"].get("ports") or []:
        if port.get("name") == kube.PORT_NAME and port.get("nodePort"):
            host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
            return f"http://{host}:{port['nodePort']}"
    return None
