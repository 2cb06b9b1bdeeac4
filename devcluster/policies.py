"""Validation of NetworkPolicies. Pure; nothing enforces them."""

import ipaddress

from devcluster.errors import Cause, forbidden_field, invalid_value, required, unsupported
from devcluster.objects import Json

_TYPES = ["Egress", "Ingress"]
_FIRST_PORT, _LAST_PORT = 1, 65535


def causes(policy: Json) -> list[Cause]:
    """Return the causes for which a policy's spec is invalid."""
    spec = policy["spec"]
    found = [unsupported("spec.policyTypes", one, _TYPES) for one in spec.get("policyTypes") or () if one not in _TYPES]
    for rules, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(rules) or ()):
            at = f"spec.{rules}[{index}]"
            for number, peer in enumerate(rule.get(peers) or ()):
                found += _peer_causes(peer, f"{at}.{peers}[{number}]")
            for number, port in enumerate(rule.get("ports") or ()):
                found += _port_causes(port.get("port"), f"{at}.ports[{number}].port")
    return found


def _peer_causes(peer: Json, at: str) -> list[Cause]:
    block = peer.get("ipBlock")
    if not peer:
        return [required(at, "must specify a peer")]
    if block is None:
        return []
    if len(peer) > 1:
        return [forbidden_field(at, "may not specify both ipBlock and another peer")]
    outer = _network(block.get("cidr", ""))
    if outer is None:
        return [invalid_value(f"{at}.ipBlock.cidr", block.get("cidr"), "must be a valid CIDR value")]
    found = []
    for index, text in enumerate(block.get("except") or ()):
        inner = _network(text)
        where = f"{at}.ipBlock.except[{index}]"
        if inner is None:
            found.append(invalid_value(where, text, "must be a valid CIDR value"))
        elif inner.version != outer.version or inner == outer or not inner.subnet_of(outer):  # type: ignore[arg-type]
            found.append(invalid_value(where, text, "must be a strict subset of `cidr`"))
    return found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text) if "/" in text else None
    except ValueError:
        return None


def _port_causes(port: object, at: str) -> list[Cause]:
    if isinstance(port, int) and not _FIRST_PORT <= port <= _LAST_PORT:
        return [invalid_value(at, port, "must be between 1 and 65535, inclusive")]
    return []
