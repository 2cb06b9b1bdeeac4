"""Hosts and ports as the headers Host and Origin write them. Pure."""

from __future__ import annotations

import ipaddress
import re

MAX_PORT = 65535

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
# Names of containers may have `_`.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
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
    if not text.isascii() or len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
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
