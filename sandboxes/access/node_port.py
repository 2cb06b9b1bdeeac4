"""Access by a port of the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.access.services import ServiceAccess
from sandboxes.addresses import authority

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject


class NodePortAccess(ServiceAccess):
    """By `http://NODE_HOST:NODE_PORT`; see Access."""

    def _url_by(self, port: KubeObject, service: KubeObject, pod: KubeObject | None) -> str | None:  # noqa: ARG002 - the nodes' port says all
        number = port.get("nodePort")
        return f"http://{authority(self._settings.node_host, number)}" if number else None
