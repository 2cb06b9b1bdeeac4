"""Kubernetes' resource quantities, such as `500m`, `2Gi` or `1e3`: what number one stands for. Exact, and pure.

The grammar is Kubernetes' own (`Quantity` in its API reference), less the sign, since nobody may ask for less than
nothing, and with bounds on the length, since nobody means a longer one.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Context, Decimal

MAX_LENGTH = 64

# "No quantity may represent a number greater than 2^63-1": Kubernetes lowers a larger one to that without a word.
LARGEST = 2**63 - 1

_QUANTITY = re.compile(
    r"(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)

# The powers of ten, and of two, that a suffix stands for.
_TENS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

# As many digits as MAX_LENGTH lets in, times the 19 of 2^60: nothing is ever rounded.
_EXACT = Context(prec=MAX_LENGTH + 19)


class QuantityError(ValueError):
    """A text that is no quantity, or is one out of bounds. The message goes on from the text: "must be …"."""


def parse(text: str) -> Decimal:
    """Return the number that the quantity stands for: of cores, or of bytes.

    Raises QuantityError for what is none, has a sign, is longer than MAX_LENGTH or more than LARGEST.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise QuantityError("must be a Kubernetes quantity, such as 500m, 2Gi or 1e3")
    suffix = match["suffix"] or ""
    tens = int(match["exponent"] or 0) + _TENS.get(suffix, 0)
    value = _EXACT.multiply(Decimal(match["number"]).scaleb(tens, _EXACT), Decimal(2 ** _TWOS.get(suffix, 0)))
    if value > LARGEST:
        raise QuantityError("must be at most 2^63-1")
    return value


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


MAX_PORT = 65535

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")

# Names of containers may have `_`.
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")

_MAX_NAME = 253


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Return the host, as normalize_host and IPv6 addresses have it, and the port; None if it is not `HOST[:PORT]`.

    User info, white space, an empty port and any other letter than ASCII's are not.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 1 <= port <= MAX_PORT:
        return None
    if found["v6"] is None:
        host = normalize_host(found["name"])
        return None if host is None else (host, port)
    try:
        return str(ipaddress.IPv6Address(found["v6"])), port
    except ValueError:
        return None


def normalize_host(text: str) -> str | None:
    """Return a host name or IPv4 address in lower case and without the dot at its end; None if it is neither."""
    name = text.lower().removesuffix(".")
    if (
        not text.isascii()
        or len(name) > _MAX_NAME
        or not all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
    ):
        return None
    return name


def host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names as normalize_host has them; raises ValueError if one is none."""
    names = tuple(filter(None, map(normalize_host, values)))
    if len(names) != len(values):
        raise ValueError("host names, separated by commas or spaces, without scheme, port and `*`")
    return names


def is_ip_address(host: str) -> bool:
    """Whether the host is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
