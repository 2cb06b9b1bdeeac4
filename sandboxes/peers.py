"""One entry of SANDBOX_INGRESS_FROM → a NetworkPolicyPeer. Pure."""

from __future__ import annotations

import ipaddress
import re

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"(?=[^/]{1,253}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"
# A label as Kubernetes has it: a name of at most 63 with or without a prefix, and a value of at most 63 or none.
_LABEL = rf"(?:{_PREFIX})?{_NAME}=(?:{_NAME})?"
_NAMESPACE = re.compile(rf"namespace:(?P<namespace>{_LABEL})(?:/pod:(?P<pod>{_LABEL}))?")
_POD = re.compile(rf"pod:(?P<pod>{_LABEL})")

RULE = "CIDRs such as `10.0.0.0/8`, `namespace:KEY=VALUE`, `pod:KEY=VALUE` and `namespace:KEY=VALUE/pod:KEY=VALUE`"


def peer_of(entry: str) -> dict[str, object]:
    """Return the peer that an entry names; raises ValueError, with the rule, if it names none.

    A CIDR is a block of addresses; `pod:` alone means Pods of the sandboxes' own namespace.
    """
    found = _NAMESPACE.fullmatch(entry) or _POD.fullmatch(entry)
    if found:
        labels = {name: label for name, label in found.groupdict().items() if label is not None}
        return {f"{name}Selector": {"matchLabels": _label(label)} for name, label in labels.items()}
    try:
        block = ipaddress.ip_network(entry)
    except ValueError as error:
        raise ValueError(RULE) from error
    if isinstance(block, ipaddress.IPv6Network) and block.network_address.ipv4_mapped is not None:
        raise ValueError(RULE)  # the API server refuses an IPv4 address that is written as one of IPv6
    return {"ipBlock": {"cidr": str(block)}}


def _label(label: str) -> dict[str, str]:
    key, _, value = label.partition("=")
    return {key: value}
