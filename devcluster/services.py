"""Defaults and validation of Services. Pure; `allocators` has the addresses."""

from devcluster.errors import Cause, duplicate, forbidden_field, invalid_value, required, unsupported
from devcluster.names import label_problems
from devcluster.objects import Json, JsonValue

HEADLESS = "None"
TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
_FIRST_PORT, _LAST_PORT = 1, 65535
_PORT_RANGE = "must be between 1 and 65535, inclusive"


def fill_in(service: Json) -> None:
    """Set defaults that the schema lacks, in place (`apply-create`)."""
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] in WITH_NODE_PORTS:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    else:
        spec.pop("externalTrafficPolicy", None)
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    service.setdefault("status", {"loadBalancer": {}})


def node_ports(service: Json) -> list[int]:
    """Return the node ports of a Service."""
    ports: list[Json] = service["spec"].get("ports") or []
    return [port["nodePort"] for port in ports if port.get("nodePort")]


def causes(service: Json) -> list[Cause]:
    """Return the causes for which a Service's spec is invalid (`apply-service-port-*`, `apply-nodeport-*`)."""
    spec = service["spec"]
    found = []
    if spec["type"] not in TYPES:
        found.append(unsupported("spec.type", spec["type"], TYPES))
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != HEADLESS and spec["type"] != "ExternalName":
        found.append(required("spec.ports"))
    if spec["type"] in WITH_NODE_PORTS and spec.get("clusterIP") == HEADLESS:
        detail = f"may not be set to 'None' for {spec['type']} services"
        found.append(invalid_value("spec.clusterIPs[0]", HEADLESS, detail))
    names: list[str] = []
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        found += _port_causes(port, at, named=len(ports) > 1)
        if port.get("name") in names:
            found.append(duplicate(f"{at}.name", port["name"]))
        if port.get("nodePort") and spec["type"] not in WITH_NODE_PORTS:
            found.append(forbidden_field(f"{at}.nodePort", f"may not be used when `type` is '{spec['type']}'"))
        names += [port["name"]] if port.get("name") else []
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        found.append(required("spec.externalName"))
    if spec.get("loadBalancerSourceRanges") and spec["type"] != "LoadBalancer":
        # From the API server's source, its capital letter included; not in the record.
        found.append(forbidden_field("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"))
    return found


def drop_node_ports(new: Json, old: Json) -> None:
    """Drop the node ports of a Service whose new type has none, in place, unless the update set them itself.

    From the API server's source (dropTypeDependentFields), not in the record.
    """
    if old["spec"]["type"] not in WITH_NODE_PORTS or new["spec"]["type"] in WITH_NODE_PORTS:
        return
    if set(node_ports(new)) <= set(node_ports(old)):
        for port in new["spec"].get("ports") or ():
            port.pop("nodePort", None)


def _port_causes(port: Json, at: str, *, named: bool) -> list[Cause]:
    found = []
    name = port.get("name", "")
    if named and not name:
        found.append(required(f"{at}.name"))
    if name:
        found += [invalid_value(f"{at}.name", name, problem) for problem in label_problems(name)]
    number = port.get("port")
    if not isinstance(number, int) or not _FIRST_PORT <= number <= _LAST_PORT:
        found.append(invalid_value(f"{at}.port", number, _PORT_RANGE))
    return found + _target_causes(port.get("targetPort"), f"{at}.targetPort")


def _target_causes(target: JsonValue, at: str) -> list[Cause]:
    if isinstance(target, int) and not _FIRST_PORT <= target <= _LAST_PORT:
        return [invalid_value(at, target, _PORT_RANGE)]
    return []


def update_causes(new: Json, old: Json) -> list[Cause]:
    """Refuse a change from one cluster IP to another."""
    before, after = old["spec"].get("clusterIPs"), new["spec"].get("clusterIPs")
    if before and after and before[:1] != after[:1]:
        return [invalid_value("spec.clusterIPs[0]", after, "may not change once set")]
    return []
