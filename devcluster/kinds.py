"""One strategy per kind: defaults, validation, and allocation of IPs and ports.

The common path (names, ownership, storing) is in `api`; the rules of Pods and Services are in `pods` and `services`.
"""

from devcluster import claims, pods, policies, services
from devcluster.allocators import ClusterIPs, NodePorts, RangeFullError, TakenError
from devcluster.errors import Cause, internal, invalid, invalid_value
from devcluster.names import metadata_causes
from devcluster.objects import Json, metadata, name_of
from devcluster.resources import CLAIMS, NAMESPACES, NETWORK_POLICIES, PODS, RESOURCES, SERVICES, Resource


class Strategy:
    """The rules common to all kinds, and hooks for kinds with their own."""

    name_is_label = False

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    def fill_in(self, obj: Json) -> None:
        """Set defaults, in place."""

    def causes(self, obj: Json) -> list[Cause]:
        """Return the causes for which an object is invalid."""
        return metadata_causes(obj, name_is_label=self.name_is_label)

    def prepare_update(self, new: Json, old: Json) -> None:
        """Drop fields that no longer apply after a change, in place, before it is validated."""

    def warnings(self, obj: Json) -> list[str]:  # noqa: ARG002 - most kinds have none
        """Return what is questionable in a new object, which kubectl prints."""
        return []

    def update_causes(self, new: Json, old: Json) -> list[Cause]:
        """Return a cause for each forbidden change (`apply-annotation-only-other-uid`)."""
        uid = metadata(new).get("uid")
        if uid != metadata(old)["uid"]:
            return [invalid_value("metadata.uid", uid, "field is immutable")]
        return []

    def allocate(self, new: Json, old: Json | None, *, dry_run: bool) -> None:
        """Allocate IPs and ports for the object, in place; the last step before it is stored."""

    def release(self, obj: Json) -> None:
        """Release the object's IPs and ports."""


class NamespaceStrategy(Strategy):
    """Namespaces have their name as a label, and a finalizer (`namespace-apply`)."""

    name_is_label = True

    def fill_in(self, obj: Json) -> None:
        """Set the label, the finalizer and the phase."""
        metadata(obj).setdefault("labels", {})["kubernetes.io/metadata.name"] = name_of(obj)
        obj["spec"] = obj.get("spec") or {"finalizers": ["kubernetes"]}
        obj["status"] = obj.get("status") or {"phase": "Active"}


class PodStrategy(Strategy):
    """Pods: see `pods`."""

    def fill_in(self, obj: Json) -> None:
        """Set the Pod's defaults."""
        pods.fill_in(obj)

    def causes(self, obj: Json) -> list[Cause]:
        """Return the causes for which a Pod is invalid."""
        return super().causes(obj) + pods.causes(obj)

    def warnings(self, obj: Json) -> list[str]:
        """Warn of ports that repeat others."""
        return pods.warnings(obj)

    def update_causes(self, new: Json, old: Json) -> list[Cause]:
        """Refuse changes of the spec."""
        return super().update_causes(new, old) + pods.update_causes(new, old)


class NetworkPolicyStrategy(Strategy):
    """Network policies are stored, but not enforced."""

    def fill_in(self, obj: Json) -> None:
        """Set the policy types: with Egress if there are egress rules."""
        spec = obj.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])

    def causes(self, obj: Json) -> list[Cause]:
        """Return the causes for which a network policy is invalid."""
        return super().causes(obj) + policies.causes(obj)


class ClaimStrategy(Strategy):
    """PersistentVolumeClaims: see `claims`."""

    def fill_in(self, obj: Json) -> None:
        """Set the claim's defaults."""
        claims.fill_in(obj)

    def causes(self, obj: Json) -> list[Cause]:
        """Return the causes for which a claim is invalid."""
        return super().causes(obj) + claims.causes(obj)

    def update_causes(self, new: Json, old: Json) -> list[Cause]:
        """Refuse changes of the spec."""
        return super().update_causes(new, old) + claims.update_causes(new, old)


class ServiceStrategy(Strategy):
    """Services: see `services`. They have a cluster IP and node ports."""

    name_is_label = True

    def __init__(self, cluster_ips: ClusterIPs, node_ports: NodePorts) -> None:
        super().__init__(SERVICES)
        self._cluster_ips = cluster_ips
        self._node_ports = node_ports

    def fill_in(self, obj: Json) -> None:
        """Set the Service's defaults."""
        services.fill_in(obj)

    def causes(self, obj: Json) -> list[Cause]:
        """Return the causes for which a Service is invalid."""
        return super().causes(obj) + services.causes(obj)

    def prepare_update(self, new: Json, old: Json) -> None:
        """Drop node ports that the new type does not have."""
        services.drop_node_ports(new, old)

    def update_causes(self, new: Json, old: Json) -> list[Cause]:
        """Refuse a change of the cluster IP."""
        return super().update_causes(new, old) + services.update_causes(new, old)

    def allocate(self, new: Json, old: Json | None, *, dry_run: bool) -> None:
        """Allocate a cluster IP and node ports, and release node ports that are no longer used."""
        self._allocate_cluster_ip(new, dry_run=dry_run)
        held = services.node_ports(old) if old else []
        taken: list[int] = []
        try:
            self._allocate_node_ports(new, held, taken, dry_run=dry_run)
        except Exception:
            for port in taken:
                self._node_ports.release(port)
            if old is None:
                self._release_cluster_ip(new)
            raise
        if not dry_run:
            for port in set(held) - set(services.node_ports(new)):
                self._node_ports.release(port)

    def _allocate_cluster_ip(self, new: Json, *, dry_run: bool) -> None:
        spec = new["spec"]
        if spec["type"] == "ExternalName" or spec.get("clusterIPs"):
            return
        address = spec.get("clusterIP")
        if not address:
            address = self._cluster_ips.allocate()
        if address != services.HEADLESS and not dry_run:
            try:
                self._cluster_ips.take(address)
            except TakenError:
                detail = f"failed to allocate IP {address}: provided IP is already allocated"
                raise invalid(SERVICES, name_of(new), [invalid_value("spec.clusterIPs", [address], detail)]) from None
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address]

    def _allocate_node_ports(self, new: Json, held: list[int], taken: list[int], *, dry_run: bool) -> None:
        wanted = new["spec"]["type"] in services.WITH_NODE_PORTS
        for index, port in enumerate(new["spec"].get("ports") or ()):
            if not wanted:
                continue
            if not port.get("nodePort"):
                port["nodePort"] = self._any_port(dry_run=dry_run)
                taken.append(port["nodePort"])
            elif port["nodePort"] not in held:
                self._certain_port(new, index, port["nodePort"], dry_run=dry_run)
                taken.append(port["nodePort"])

    def _any_port(self, *, dry_run: bool) -> int:
        """Allocate a random node port (`apply-nodeports-exhausted`)."""
        try:
            return self._node_ports.allocate(dry_run=dry_run)
        except RangeFullError:
            raise internal("failed to allocate a nodePort: range is full") from None

    def _certain_port(self, new: Json, index: int, port: int, *, dry_run: bool) -> None:
        """Allocate the requested node port (`apply-nodeport-taken`)."""
        try:
            self._node_ports.take(port, dry_run=dry_run)
        except TakenError:
            detail = "provided port is already allocated"
            if not self._node_ports.contains(port):
                detail = "provided port is not in the valid range"
            cause = invalid_value(f"spec.ports[{index}].nodePort", port, detail)
            raise invalid(SERVICES, name_of(new), [cause]) from None

    def release(self, obj: Json) -> None:
        """Release the cluster IP and the node ports."""
        self._release_cluster_ip(obj)
        for port in services.node_ports(obj):
            self._node_ports.release(port)

    def _release_cluster_ip(self, obj: Json) -> None:
        for address in obj["spec"].get("clusterIPs") or ():
            self._cluster_ips.release(address)


def strategies(cluster_ips: ClusterIPs, node_ports: NodePorts) -> dict[Resource, Strategy]:
    """Return the strategy of each stored resource."""
    own = {
        CLAIMS: ClaimStrategy(CLAIMS),
        NAMESPACES: NamespaceStrategy(NAMESPACES),
        NETWORK_POLICIES: NetworkPolicyStrategy(NETWORK_POLICIES),
        PODS: PodStrategy(PODS),
        SERVICES: ServiceStrategy(cluster_ips, node_ports),
    }
    return {resource: own.get(resource, Strategy(resource)) for resource in RESOURCES if resource.stored}
