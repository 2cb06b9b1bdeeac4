"""Parses quantities, names, labels, image references and hosts of requests and settings. Pure.

Each syntax is defined once, here. Settings, requests and filters add their own restrictions.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Context, Decimal

# Resource quantities, such as `500m`, `2Gi` or `1e3`, by the grammar of `Quantity` in the Kubernetes API reference, but
# without a sign, since no resource is negative, and of limited length.
MAX_LENGTH = 64

# "No quantity may represent a number greater than 2^63-1": Kubernetes silently caps larger ones.
LARGEST = 2**63 - 1

_QUANTITY = re.compile(
    r"(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)

# Suffixes, as powers of ten and of two.
_TENS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

# MAX_LENGTH digits times the 19 digits of 2^60: nothing is rounded.
_EXACT = Context(prec=MAX_LENGTH + 19)


class QuantityError(ValueError):
    """The text is not a quantity, or is out of bounds. The message is a predicate: "must be …"."""


def parse_quantity(text: str) -> Decimal:
    """Return the value of a quantity, in cores or bytes.

    Raises QuantityError if the text is not a quantity, has a sign, is longer than MAX_LENGTH or exceeds LARGEST.
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


# Names of Kubernetes objects: a DNS label, and a DNS subdomain. The length is checked separately.
DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
MAX_DNS_LABEL = 63

_DNS_NAME = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
MAX_DNS_NAME = 253


def is_dns_label(text: str) -> bool:
    """Whether the text is a lower-case DNS label (RFC 1123), such as the name of a namespace."""
    return len(text) <= MAX_DNS_LABEL and re.fullmatch(DNS_LABEL, text) is not None


def is_dns_name(text: str) -> bool:
    """Whether the text is a lower-case DNS subdomain (RFC 1123), such as the name of most objects."""
    return len(text) <= MAX_DNS_NAME and re.fullmatch(_DNS_NAME, text) is not None


# Label keys and values, and annotation keys (`IsQualifiedName` and `IsValidLabelValue` in Kubernetes):
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_MARK = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

KEY = rf"((?=[^/]{{1,{MAX_DNS_NAME}}}/){_DNS_NAME}/)?{_MARK}"
LABEL_VALUE = rf"({_MARK})?"


def key_problem(key: str) -> str | None:
    """Return the rule that the key of a label or annotation breaks, or None if it is valid."""
    prefix, slash, name = key.rpartition("/")
    if not re.fullmatch(_MARK, name):
        return "A key's name has 1 to 63 letters, digits, `-`, `_` and `.`, and starts and ends with a letter or digit"
    if slash and not is_dns_name(prefix):
        return f"A key's prefix is a DNS name in lower case, of at most {MAX_DNS_NAME} characters"
    return None


def label_value_problem(value: str) -> str | None:
    """Return the rule that a label value breaks, or None if it is valid; it may be empty."""
    if re.fullmatch(LABEL_VALUE, value):
        return None
    return (
        "A label's value has at most 63 letters, digits, `-`, `_` and `.`, and starts and ends with a letter or digit"
    )


def parse_label(text: str) -> tuple[str, str | None]:
    """Return (key, value) of `KEY=VALUE`, or (key, None) of `KEY`. Raises ValueError with the broken rule."""
    key, equals, value = text.partition("=")
    problem = key_problem(key) or label_value_problem(value)
    if problem:
        raise ValueError(problem)
    return key, value if equals else None


# Image references, [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST], by the grammar that container runtimes share:
# https://pkg.go.dev/github.com/distribution/reference
MAX_IMAGE_LENGTH = 512  # a name of 255, a tag of 128 and a digest of 71 characters fit

_DOMAIN_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"({_DOMAIN_LABEL}(\.{_DOMAIN_LABEL})*|\[[0-9A-Fa-f:]+\])(:[0-9]+)?"
_PATH_COMPONENT = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_PATH = rf"({_PATH_COMPONENT}/)*(?P<name>{_PATH_COMPONENT})"
_IMAGE = re.compile(rf"({_DOMAIN}/)?{_PATH}(:{_TAG})?(@{_DIGEST})?")

IMAGE_RULE = (
    "an image reference, [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST], with the path in lower case, without quotes and white "
    f"space, of at most {MAX_IMAGE_LENGTH} characters"
)


def check_image(text: str) -> str:
    """Return the text if it is an image reference. Raises ValueError with the rule if it is not."""
    image_name(text)
    return text


def image_name(text: str) -> str:
    """Return the last component of an image reference's path. Raises ValueError with the rule if it is none."""
    found = _IMAGE.fullmatch(text) if len(text) <= MAX_IMAGE_LENGTH else None
    if found is None:
        raise ValueError(IMAGE_RULE)
    return found["name"]


# Peers of a NetworkPolicy that may connect to a sandbox.
_LABEL = rf"{KEY}={LABEL_VALUE}"
_NAMESPACE = re.compile(rf"namespace:(?P<namespace>{_LABEL})(?:/pod:(?P<pod>{_LABEL}))?")
_POD = re.compile(rf"pod:(?P<pod>{_LABEL})")

RULE = "CIDRs such as `10.0.0.0/8`, `namespace:KEY=VALUE`, `pod:KEY=VALUE` and `namespace:KEY=VALUE/pod:KEY=VALUE`"


def peer_of(entry: str) -> dict[str, object]:
    """Return the NetworkPolicyPeer for an entry of SANDBOX_INGRESS_FROM. Raises ValueError with the rule.

    `pod:` without `namespace:` selects Pods in the namespace of the sandboxes.
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
        raise ValueError(RULE)  # the API server rejects IPv4-mapped IPv6 addresses
    return {"ipBlock": {"cidr": str(block)}}


def _label(label: str) -> dict[str, str]:
    key, _, value = label.partition("=")
    return {key: value}


# Hosts, as in URLs and the `Host` header.
MAX_PORT = 65535

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")

# Container names may contain `_`.
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Return the normalized host and the port of `HOST[:PORT]`; None if the text is anything else.

    User info, white space, an empty port and non-ASCII characters are rejected.
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
    """Return a host name or IPv4 address in lower case without the trailing dot; None if it is neither."""
    name = text.lower().removesuffix(".")
    if (
        not text.isascii()
        or len(name) > MAX_DNS_NAME
        or not all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
    ):
        return None
    return name


def host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names normalized by normalize_host. Raises ValueError if one is not a host name."""
    names = tuple(filter(None, map(normalize_host, values)))
    if len(names) != len(values):
        raise ValueError("host names, separated by commas or spaces, without scheme, port and `*`")
    return names


def is_loopback(host: str) -> bool:
    """Whether the host is `localhost` or a loopback address."""
    return host == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def is_ip_address(host: str) -> bool:
    """Whether the host is an IPv4 address, or an IPv6 address without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
