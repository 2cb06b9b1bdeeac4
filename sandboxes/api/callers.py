"""Checks requests without an API key: serves nearby callers, and no cross-origin browser requests. Pure.

A caller is nearby if its address is loopback or private and no proxy forwarded the request. This is not authentication:
it keeps a proxy from exposing a provisioner without a key. SECURITY.md lists the attacks that it does not stop.

A browser on this machine is nearby, too, and sends requests for any page. Three headers that a page can't set reveal
it: Sec-Fetch-Site, Origin, and Host, if an attacker points that name at this machine (DNS rebinding).
https://www.w3.org/TR/fetch-metadata/, https://fetch.spec.whatwg.org/#origin-header
A request line may name a host, too: `GET http://HOST/path`. HTTP prefers it to the header (RFC 9112, 3.2.2), and
programs differ, so both must be right.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from sandboxes.errors import BrowserRefused, Unauthenticated
from sandboxes.grammar import is_ip_address, parse_authority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandboxes.settings import Settings

API = "/api/"
METRICS = "/metrics"

# Not `is_private`: it includes link-local and documentation networks, and differs between Python versions.
NEARBY = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "::1/128"),
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "fc00::/7",  # RFC 4193
    )
)

LOCAL_NAMES = frozenset({"host.docker.internal"})
# Ends the names of Services, before the cluster's domain.
LOCAL_SUFFIX = ".svc"

_OWN_PAGES = frozenset({"same-origin", "none"})
_ORIGIN = re.compile(r"(https?)://([^/]*)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The service itself has no TLS.
_OWN_SCHEME = "http"

# The host of an absolute request target. No header can have this name.
_AUTHORITY = ":authority"
_ABSOLUTE = re.compile(r"[^/?#]*://(?P<authority>[^/?#]*)")
_PLACES = {"host": "the header Host", _AUTHORITY: "the request line"}

_REMEDY = "set PROVISIONER_API_KEY, or ALLOW_UNAUTHENTICATED=true to answer every address"
_LOGGED = ("host", _AUTHORITY, "origin", "sec-fetch-site")
_MOST_LOGGED = 200


def is_in_pod(environ: Mapping[str, str], service_account: Path) -> bool:
    """Whether this process runs in a Pod. `service_account`: the directory that Kubernetes mounts into Pods."""
    return "KUBERNETES_SERVICE_HOST" in environ or service_account.is_dir()


def is_nearby(peer: str) -> bool:
    """Whether the address is loopback or private; IPv4 in IPv6 (`::ffff:10.0.0.1`) counts as IPv4."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return any(address in network for network in NEARBY)


class Callers:
    """Decides on requests without an API key. `in_pod`: no address is nearby, as sandboxes have private ones."""

    def __init__(self, settings: Settings, *, in_pod: bool) -> None:
        self._answers_all = settings.allow_unauthenticated
        self._in_pod = in_pod
        self._hosts = LOCAL_NAMES.union(settings.allowed_hosts)
        self._local_suffixes = (LOCAL_SUFFIX, f"{LOCAL_SUFFIX}.{settings.cluster_domain}")

    def check(self, path: str, peer: str | None, headers: Iterable[tuple[str, str]], target: str = "") -> None:
        """Check one request.

        `path`: decoded; `peer`: the remote address of the connection, None if unknown; `target`: the request target as
        it was sent, a path or an absolute URL.

        Raises Unauthenticated under /api/ if the caller is not nearby; raises BrowserRefused under /api/ and for
        /metrics if this may be a cross-origin browser request.
        """
        is_api = path.startswith(API)
        if not is_api and path.rstrip("/") != METRICS:
            return
        sent: dict[str, list[str]] = {}
        for name, value in headers:
            sent.setdefault(name.lower(), []).append(value)
        if absolute := _ABSOLUTE.match(target):
            sent[_AUTHORITY] = [absolute["authority"]]
        if is_api and not self._answers_all and (why := self._why_not_nearby(peer, sent)):
            raise Unauthenticated(f"Without an API key {why}: {_REMEDY}", detail=_described(peer, sent))
        if why := self._why_cross_origin(sent):
            raise BrowserRefused(f"Without an API key {why}", detail=_described(peer, sent))

    def who_is_answered(self, address: str) -> str:
        """Return the sentence for the startup log. `address`: where the service listens."""
        if self._answers_all:
            return (
                f"ALLOW_UNAUTHENTICATED is true: every caller that reaches {address} can create and delete sandboxes."
            )
        if self._in_pod:
            return f"This is a Pod, so every request under {API} gets 401: {_REMEDY}."
        return (
            f"Callers that reach {address} from a loopback or private address, without a proxy's forwarding headers, "
            f"can create and delete sandboxes; all others get 401."
        )

    def _why_not_nearby(self, peer: str | None, sent: Mapping[str, list[str]]) -> str:
        if self._in_pod:
            return f"a provisioner in a Pod answers nothing under {API}"
        if forwarded := next(filter(_is_of_a_proxy, sent), None):
            return f"forwarded requests are refused, and this one has the header {forwarded}"
        if not peer:
            return "only loopback and private addresses are answered, and the caller's is unknown"
        if not is_nearby(peer):
            return f"only loopback and private addresses are answered, and {peer} is neither"
        return ""

    def _why_cross_origin(self, sent: Mapping[str, list[str]]) -> str:
        if any(site.lower() not in _OWN_PAGES for site in sent.get("sec-fetch-site", ())):
            return "cross-origin browser requests are refused (header Sec-Fetch-Site)"
        own: dict[tuple[str, int], str] = {}
        for name, place in _PLACES.items():
            hosts = [parse_authority(value) for value in sent.get(name, ())]
            if None in hosts or (name == "host" and not hosts):
                return f"{place} must {'be' if name == 'host' else 'name'} HOST or HOST:PORT"
            for host, port in filter(None, hosts):
                own.setdefault((host, port or _DEFAULT_PORTS[_OWN_SCHEME]), place)
        if any({_authority_of(origin)} != own.keys() for origin in sent.get("origin", ())):
            return "cross-origin browser requests are refused (header Origin)"
        for (host, _), place in own.items():
            if not self._is_safe(host):
                return f"the name {host} in {place} is not allowed: use an IP address, or add it to ALLOWED_HOSTS"
        return ""

    def _is_safe(self, host: str) -> bool:
        """Whether no attacker can point the name here: public DNS can't have it, or the operator allows it."""
        return "." not in host or host in self._hosts or host.endswith(self._local_suffixes) or is_ip_address(host)


def _is_of_a_proxy(name: str) -> bool:
    return name in {"forwarded", "x-real-ip"} or name.startswith("x-forwarded-")


def _authority_of(origin: str) -> tuple[str, int] | None:
    """Return host and port of an http(s) origin; None for any other, and for `null`."""
    found = _ORIGIN.fullmatch(origin)
    authority = parse_authority(found[2]) if found else None
    if found is None or authority is None:
        return None
    host, port = authority
    return host, port or _DEFAULT_PORTS[found[1].lower()]


def _described(peer: str | None, sent: Mapping[str, list[str]]) -> str:
    """Return the address and the headers that decided, for the log."""
    shown = [f"{name}: {ascii(value)[:_MOST_LOGGED]}" for name in _LOGGED for value in sent.get(name, ())]
    return ", ".join([f"peer: {peer}", *shown])
