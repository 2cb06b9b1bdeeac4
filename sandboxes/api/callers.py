"""Who is answered without an API key: callers nearby, and never a browser for a page of another origin. Pure.

Nearby is a loopback or private address from which no proxy forwards. That is no authentication: it keeps a provisioner
without a key from being served to the world by a proxy in front of it, and SECURITY.md says what it does not keep off.

A browser is nearby, too, and sends what any page tells it to. Three headers, which a page can't set, give it away:
Sec-Fetch-Site, Origin, and the Host of a name that an attacker points at this machine (DNS rebinding).
https://www.w3.org/TR/fetch-metadata/, https://fetch.spec.whatwg.org/#origin-header
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

# Not `is_private`: that has more, such as link-local and documentation, and differs between versions of Python.
NEARBY = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "::1/128"),
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "fc00::/7",  # RFC 4193
    )
)

LOCAL_NAMES = frozenset({"host.docker.internal"})
LOCAL_SUFFIXES = (".svc", ".svc.cluster.local")

_OWN_PAGES = frozenset({"same-origin", "none"})
_ORIGIN = re.compile(r"(https?)://([^/]*)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The service itself has no TLS.
_OUR_SCHEME = "http"

_REMEDY = "set PROVISIONER_API_KEY, or ALLOW_UNAUTHENTICATED=true to answer every address"
_LOGGED = ("host", "origin", "sec-fetch-site")
_MOST_LOGGED = 200


def is_in_pod(environ: Mapping[str, str], service_account: Path) -> bool:
    """Whether this process runs in a Pod. `service_account`: the folder that Kubernetes mounts into Pods."""
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
    """Decides about requests without an API key. `in_pod`: in a Pod every sandbox has a private address, too."""

    def __init__(self, settings: Settings, *, in_pod: bool) -> None:
        self._answers_all = settings.allow_unauthenticated
        self._in_pod = in_pod
        self._hosts = LOCAL_NAMES.union(settings.allowed_hosts)

    def check(self, path: str, peer: str | None, headers: Iterable[tuple[str, str]]) -> None:
        """Return if the request may be answered. `peer`: the address at the other end of the connection, if known.

        Raises Unauthenticated for a caller from elsewhere, below /api/; and BrowserRefused for what may be a browser's
        request for a page of another origin, below /api/ and of /metrics.
        """
        is_api = path.startswith(API)
        if not is_api and path != METRICS:
            return
        sent: dict[str, list[str]] = {}
        for name, value in headers:
            sent.setdefault(name.lower(), []).append(value)
        if is_api and not self._answers_all and (why := self._why_not_nearby(peer, sent)):
            raise Unauthenticated(f"Without an API key {why}: {_REMEDY}", detail=_described(peer, sent))
        if why := self._why_foreign(sent):
            raise BrowserRefused(f"Without an API key {why}", detail=_described(peer, sent))

    def who_is_answered(self, address: str) -> str:
        """Return the sentence for the log at the start. `address`: where the service listens."""
        if self._answers_all:
            return f"ALLOW_UNAUTHENTICATED is true: whoever reaches {address} can make and delete sandboxes."
        if self._in_pod:
            return f"This is a Pod, so every request under {API} gets 401: {_REMEDY}."
        return (
            f"Whoever reaches {address} from a loopback or private address, and not through a proxy that says so, can "
            f"make and delete sandboxes; all others get 401."
        )

    def _why_not_nearby(self, peer: str | None, sent: Mapping[str, list[str]]) -> str:
        if self._in_pod:
            return f"a provisioner in a Pod answers nothing under {API}"
        if forwarded := next(filter(_is_of_a_proxy, sent), None):
            return f"a request that a proxy has forwarded is not answered, and this one has the header {forwarded}"
        if not peer:
            return "only loopback and private addresses are answered, and the caller's is unknown"
        if not is_nearby(peer):
            return f"only loopback and private addresses are answered, and {peer} is neither"
        return ""

    def _why_foreign(self, sent: Mapping[str, list[str]]) -> str:
        if any(site.lower() not in _OWN_PAGES for site in sent.get("sec-fetch-site", ())):
            return "a browser's request for a page of another origin is not answered (header Sec-Fetch-Site)"
        hosts = [parse_authority(value) for value in sent.get("host", ())]
        if not hosts or None in hosts:
            return "a request is answered only if its header Host is a host, with or without a port"
        ours = {(host, port or _DEFAULT_PORTS[_OUR_SCHEME]) for host, port in filter(None, hosts)}
        if any({_authority_of(origin)} != ours for origin in sent.get("origin", ())):
            return "a browser's request for a page of another origin is not answered (header Origin)"
        for host, _ in ours:
            if not self._is_ours(host):
                return (
                    f"the name {host} in the header Host is not answered to: use an IP address, or add the name to "
                    "ALLOWED_HOSTS"
                )
        return ""

    def _is_ours(self, host: str) -> bool:
        """Whether no stranger can point the name at this machine: DNS has it not, or the operator has named it."""
        return "." not in host or host in self._hosts or host.endswith(LOCAL_SUFFIXES) or is_ip_address(host)


def _is_of_a_proxy(name: str) -> bool:
    return name in {"forwarded", "x-real-ip"} or name.startswith("x-forwarded-")


def _authority_of(origin: str) -> tuple[str, int] | None:
    """Return host and port of an origin; None for `null` and for what is not a web page's."""
    found = _ORIGIN.fullmatch(origin)
    authority = parse_authority(found[2]) if found else None
    if found is None or authority is None:
        return None
    host, port = authority
    return host, port or _DEFAULT_PORTS[found[1].lower()]


def _described(peer: str | None, sent: Mapping[str, list[str]]) -> str:
    """Return, for the log, what decided."""
    told = [f"{name}: {ascii(value)[:_MOST_LOGGED]}" for name in _LOGGED for value in sent.get(name, ())]
    return ", ".join([f"peer: {peer}", *told])
