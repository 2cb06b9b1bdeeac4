"""Sets the sandbox's port in its container and its Service, and fits a Service to what is in the cluster. Pure.

Server-side apply identifies a container's port by containerPort and protocol, and a Service's by port and protocol. An
apply with another number adds an entry, and two entries must not have one name (record: apply-port-name-twice,
apply-service-port-name-twice). So what is applied onto an existing Service has the numbers that are there.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject

# For a TCP port beside a port of another protocol that is named `http`.
_OTHER_NAME = f"{kube.PORT_NAME}-tcp"

# Fields of a Service that only its creation can set.
_IMMUTABLE = ("clusterIP", "clusterIPs", "ipFamilies")


def set_container_port(container: KubeObject, port: int) -> None:
    """Complete the container's TCP port `port`, else its TCP port named `http`, else add one; and set the probes' port.

    The entry keeps its name and its other fields, such as `hostPort`.
    """
    ports = container.setdefault("ports", [])
    entry = _first(ports, containerPort=port) or _first(ports, name=kube.PORT_NAME)
    if entry is None:
        ports.append(entry := {})
    if "name" not in entry and _is_free(kube.PORT_NAME, ports):
        entry["name"] = kube.PORT_NAME
    entry |= {"containerPort": port, "protocol": "TCP"}
    for probe in kube.PROBES:
        if "httpGet" in container.get(probe, {}):
            container[probe]["httpGet"]["port"] = port


def set_service_port(spec: KubeObject, port: int) -> None:
    """Complete the Service's TCP port named `http`, else its TCP port `port`, else add one.

    The entry keeps its name and its other fields, such as `appProtocol` and `nodePort`. It keeps its number, too, if
    another entry has `port`. A Service without node ports keeps no field that needs them.
    """
    ports = spec.setdefault("ports", [])
    same = _first(ports, port=port)
    entry = _first(ports, name=kube.PORT_NAME) or same
    if entry is None:
        ports.append(entry := {})
    entry.setdefault("name", kube.PORT_NAME if _is_free(kube.PORT_NAME, ports) else _OTHER_NAME)
    if same is None or same is entry:
        entry["port"] = port
    entry |= {"targetPort": port, "protocol": "TCP"}
    _drop_node_ports(spec)


def of_type(service: KubeObject, service_type: str) -> KubeObject:
    """Return the Service with this type, without fields that it then can't have."""
    result = copy.deepcopy(service)
    result["spec"]["type"] = service_type
    _drop_node_ports(result["spec"])
    return result


def _drop_node_ports(spec: KubeObject) -> None:
    if spec["type"] == "ClusterIP":
        spec.pop("externalTrafficPolicy", None)
        for one in spec["ports"]:
            one.pop("nodePort", None)


def must_be_replaced(service: KubeObject, service_type: str) -> bool:
    """Whether no apply can give the existing Service this type: a headless one never gets an address."""
    return kube.is_headless(service) and service_type != "ClusterIP"


def fitted(new: KubeObject, pod: KubeObject | None, service: KubeObject | None, default: int) -> KubeObject:
    """Return the Service `new` as it is to be applied beside the existing Pod and onto the existing Service.

    `default`: the port of new sandboxes. A Service beside an existing Pod leads to the port that this Pod listens on.
    """
    result = copy.deepcopy(new)
    spec = result["spec"]
    entry = kube.sandbox_port(result, None, default)
    if entry is None or (pod is None and service is None):
        return result
    others = [one for one in spec["ports"] if one is not entry]
    number = kube.server_port(pod) if pod else None
    if number is not None:
        entry["targetPort"] = number
        if _first(others, port=number) is None:
            entry["port"] = number
    if service is not None:
        _fit(entry, others, pod, service, default)
        there = service["spec"]
        spec |= {field: there[field] for field in _IMMUTABLE if field in spec and field in there}
        if there.get("type") == "LoadBalancer":  # has a node port and an address, too
            spec["type"] = there["type"]
    spec["ports"] = _distinct([entry, *others])
    return result


def _fit(
    entry: KubeObject, others: list[KubeObject], pod: KubeObject | None, service: KubeObject, default: int
) -> None:
    """Give the ports of a new Service the names and numbers of those that they are merged with."""
    ports = service["spec"].get("ports") or []
    old = kube.sandbox_port(service, pod, default)
    if old is not None:
        _take(entry, old)
        if pod is not None and kube.leads_to(pod, old):
            entry["targetPort"] = old.get("targetPort", old["port"])
    elif not _is_free(entry["name"], ports):
        entry["name"] = _OTHER_NAME
    for other in others:
        named = [one for one in ports if one.get("name") == other.get("name")]
        same = named or [one for one in ports if _key(one) == _key(other)]
        if same:
            _take(other, same[0])


def _take(entry: KubeObject, old: KubeObject) -> None:
    entry["port"] = old["port"]
    entry["protocol"] = old.get("protocol", "TCP")
    if old.get("name"):
        entry["name"] = old["name"]
    if "nodePort" in entry and old.get("nodePort"):
        entry["nodePort"] = old["nodePort"]


def _distinct(ports: list[KubeObject]) -> list[KubeObject]:
    """Return the ports without those that have the name or the key of an earlier one."""
    kept: list[KubeObject] = []
    for port in ports:
        if all(_key(port) != _key(one) and port.get("name") != one.get("name") for one in kept):
            kept.append(port)
    return kept


def _key(port: KubeObject) -> tuple[object, object]:
    return port.get("port"), port.get("protocol", "TCP")


def _first(ports: list[KubeObject], **fields: object) -> KubeObject | None:
    """Return the first TCP port with these fields, or None."""
    return next((one for one in ports if kube.is_tcp(one) and fields.items() <= one.items()), None)


def _is_free(name: str, ports: list[KubeObject]) -> bool:
    return all(one.get("name") != name for one in ports)
