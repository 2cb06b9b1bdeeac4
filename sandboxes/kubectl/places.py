"""Tells which namespace of which API server a connection leads to, as far as its configuration says that. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sandboxes.kubectl.kubeconfig import shown_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.kubectl.config import CurrentContext
    from sandboxes.settings import Settings

_PORTS = {"https": 443, "http": 80}


class Place(NamedTuple):
    """Two connections with the same place lead to the same objects; with another one, they may, too.

    A proxy, and by the TLS server name a router, can lead one address to several API servers.
    """

    server: str
    tls_server_name: str | None
    proxy: str | None
    namespace: str

    @property
    def shown(self) -> str:
        """Return it for a message, without secrets."""
        return f"namespace {self.namespace} at {shown_address(self.server)}"


def place_of(context: CurrentContext, settings: Settings) -> Place:
    """Return where kubectl goes with this context of the kubeconfig, and the settings that override it."""
    server = _normal(settings.k8s_api_server or context.server)
    name = settings.k8s_tls_server_name or context.tls_server_name
    return Place(server, name, context.proxy_url, settings.k8s_namespace)


def same_places(places: Iterable[tuple[str, Place]]) -> list[tuple[str, str, Place]]:
    """Return each name with the first one that has the same place, and that place."""
    first: dict[Place, str] = {}
    return [(first[place], name, place) for name, place in places if first.setdefault(place, name) != name]


def _normal(server: str) -> str:
    """Return the address in one spelling; as it is if it can't be parsed."""
    try:
        url = urlsplit(server)
        port = url.port or _PORTS.get(url.scheme.lower())
    except ValueError:
        return server
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
    return f"{url.scheme.lower()}://{host}:{port}{url.path.rstrip('/')}"
