"""Which sandbox a request is for, by its path, its host and the gateway's cookie. Pure; checks no token.

Each sandbox is below `/s/{sandbox_id}/{token}`. Where SANDBOX_GATEWAY_URL has `{sandbox_id}` in its host, each sandbox
also has an origin of its own: there, the first request by the prefix leaves a cookie with the token, and later requests
need no prefix. So pages with absolute links work.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sandboxes.access.tokens import is_token
from sandboxes.gateway_settings import ID_PLACE

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

# The name of the gateway's cookie. It never reaches a sandbox, and a sandbox can't set it.
COOKIE = b"sandbox-gateway"
# Of one request that are compared.
MOST_TOKENS = 32

# Of a request (RFC 3986, 3.2.2, with a port); the sandbox gets it as X-Forwarded-Host.
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")

_BY_PREFIX = re.compile(r"/s/([^/?#]+)/([^/?#]+)(.*)", re.DOTALL)
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ELSEWHERE = frozenset({b"cross-site", b"same-site"})


class Wanted(NamedTuple):
    """What a request asks for.

    `target`: path and query as they go to the sandbox. `prefix`: what was in front of it; empty if the request comes
    by the cookie. `has_own_origin`: whether the request's host is the sandbox's own.
    """

    sandbox_id: str
    token: str
    target: str
    prefix: str
    has_own_origin: bool


class Origins:
    """The origins of the sandboxes. `url`: SANDBOX_GATEWAY_URL, or None for one that has no id in its host."""

    def __init__(self, url: str | None) -> None:
        parts = urlsplit((url or "http://localhost").replace(ID_PLACE, "\0"))
        self.scheme = parts.scheme.encode()
        host = self._host = parts.netloc.lower() if url else ""
        before, place, after = (host if parts.port is None else host.rpartition(":")[0]).partition("\0")
        self._around = (before, after) if place else None

    def host_of(self, sandbox_id: str) -> bytes:
        """Return host and port of a sandbox's URLs, as callers reach them; empty if that is not known."""
        return self._host.replace("\0", sandbox_id).encode(errors="surrogateescape")

    def own_id(self, host: str) -> str | None:
        """Return the sandbox id in a request's Host, or None if it has none."""
        if self._around is None:
            return None
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdigit():
            name = host.lower()
        before, after = self._around
        middle = name[len(before) : len(name) - len(after)]
        is_own = name.startswith(before) and name.endswith(after) and middle and "." not in middle
        return middle if is_own else None

    def wanted(self, path: str, host: str, cookies: Iterable[bytes]) -> Wanted | None:
        """Return what the request asks for, or None if it names no sandbox.

        `path`: of the request line, as sent; `cookies`: the values of its Cookie headers.
        """
        if not path.startswith("/"):
            path = _without_authority(path)
        own_id = self.own_id(host)
        found = _BY_PREFIX.fullmatch(path)
        if found is not None and (own_id is None or is_token(found[2])):
            sandbox_id, token, rest = found.groups()
            if own_id not in (None, sandbox_id):
                return None
            target = rest if rest.startswith("/") else f"/{rest}"
            return Wanted(sandbox_id, token, target, f"/s/{sandbox_id}/{token}", own_id is not None)
        if own_id is None or not path.startswith("/"):
            return None
        return Wanted(own_id, next(iter(tokens_in(cookies)), ""), path, "", has_own_origin=True)

    def new_cookie(self, token: str) -> bytes:
        """Return the Set-Cookie that lets later requests come without the prefix."""
        secure = b"; Secure" if self.scheme == b"https" else b""
        return b"%s=%s; Path=/; HttpOnly; SameSite=Lax%s" % (COOKIE, token.encode(errors="surrogateescape"), secure)


def tokens_in(cookies: Iterable[bytes]) -> list[str]:
    """Return the tokens in the gateway's cookies, at most MOST_TOKENS.

    Another sandbox's page can set a cookie of this name for the domain above both, but not one with a valid token.
    """
    parts = (part.strip().partition(b"=") for value in cookies for part in value.split(b";"))
    tokens = (token.decode("latin-1") for name, _, token in parts if name == COOKIE)
    return list(islice(filter(is_token, tokens), MOST_TOKENS))


def is_from_elsewhere(method: str, headers: Mapping[bytes, bytes], own: Container[bytes], *, upgrades: bool) -> bool:
    """Whether a page of another origin has sent a request by the cookie, which its sandbox must not receive.

    `headers`: by name in lower case; `own`: the hosts of the sandbox's own pages. Other sandboxes' pages are
    `same-site`, and not trusted either. They may only lead the browser here, by a link.
    """
    is_safe = method in _SAFE and not upgrades
    if headers.get(b"sec-fetch-site") in _ELSEWHERE and not (is_safe and headers.get(b"sec-fetch-mode") == b"navigate"):
        return True
    if is_safe:
        return False
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() not in own


def _without_authority(target: str) -> str:
    """Return the path of an absolute target, `http://host/path`; others as they are."""
    scheme = _SCHEME.match(target)
    if scheme is None:
        return target
    authority, slash, path = target[scheme.end() :].partition("/")
    return f"/{path}" if slash and "?" not in authority else target
