"""Says which access a sandbox has. One with a mark of the gateway on its Pod keeps it; every other has a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.access.cluster_ip import ClusterIPAccess
from sandboxes.access.gateway import GatewayAccess
from sandboxes.access.node_port import NodePortAccess

if TYPE_CHECKING:
    from sandboxes.access.interface import Access
    from sandboxes.access.services import ServiceAccess
    from sandboxes.access.tokens import Keys
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


class Accesses:
    """The accesses of one cluster.

    `settings`: of the cluster. `keys`: they sign the URLs; None if this process has no gateway, or needs no URL: then a
    Pod that was made for the gateway is reached by a Service, once a create has given it one.
    """

    def __init__(self, settings: Settings, keys: Keys | None = None) -> None:
        self.settings = settings
        self.keys = keys
        self._by_type: dict[str, ServiceAccess] = {
            "NodePort": NodePortAccess(settings),
            "ClusterIP": ClusterIPAccess(settings),
        }
        self._gateway = None if keys is None else GatewayAccess(settings, keys)
        # The type of a Service decides where no setting says it: it may come from another SANDBOX_ACCESS than today's.
        self._is_type_unset = settings.access == "gateway" and not settings.is_set("sandbox_service_type")

    @property
    def new(self) -> Access:
        """The access of sandboxes that are made now."""
        if self.settings.access == "gateway" and self._gateway is not None:
            return self._gateway
        return self._by_type[self.settings.service_type]

    def of(self, pod: KubeObject, service: KubeObject | None) -> Access:
        """Return the access of an existing sandbox."""
        if self._gateway is not None and kube.is_behind_gateway(pod):
            return self._gateway
        return self._by_type[self.service_type(service)]

    def service_type(self, service: KubeObject | None) -> str:
        """Return the type that the Service of an existing sandbox is to have."""
        if self._is_type_unset and service is not None and service["spec"].get("type") in self._by_type:
            return str(service["spec"]["type"])
        return self.settings.service_type

    @property
    def has_gateway(self) -> bool:
        """Whether Pods that were made for the gateway have a URL of it."""
        return self._gateway is not None

    def gateway_url(self, pod: KubeObject, port: int | None, expires_at: int | None) -> tuple[str, int]:
        """Return a URL by the gateway and its port; see GatewayAccess.url_for. Only if there is a gateway."""
        assert self._gateway is not None  # noqa: S101 - the caller has asked
        return self._gateway.url_for(pod, port, expires_at)

    def signing_key(self) -> bytes | None:
        """Return the key that signs now: with another one, all URLs of the gateway are other ones."""
        return None if self.keys is None else self.keys.current()[0]
