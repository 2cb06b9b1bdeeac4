"""The heads of requests to sandboxes and of their responses, as bytes. Pure.

Headers go through in their order and as they were written, but for the rules in the tables below. Nothing is added that
the sender did not send, except what these rules name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sandboxes.access.tokens import FORM
from sandboxes.gateway.origins import COOKIE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Header = tuple[bytes, bytes]

# They concern one connection: RFC 9110, 7.6.1, and those that RFC 2616 named.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Of a caller. X-API-Key is the service's own; the others are written anew, since a caller may have made them up.
REPLACED = frozenset({b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"})
FROM_CALLERS = HOP_BY_HOP | REPLACED | {b"x-api-key"}
# Of a sandbox: what concerns more of the gateway's origin than the sandbox's part of it.
FROM_SANDBOXES = HOP_BY_HOP | {
    b"referrer-policy",
    b"service-worker-allowed",
    b"clear-site-data",
    b"strict-transport-security",
    b"alt-svc",
    # With both, a browser reports each request to the origin, other sandboxes' URLs too, to whom the sandbox names.
    b"nel",
    b"report-to",
}
FROM_SANDBOXES_WITHOUT_LENGTH = FROM_SANDBOXES | {b"content-length"}
_DROPPED_WITH_UNDERSCORES = FROM_CALLERS | {b"content-length"}
# A Connection header can't take these away.
_KEPT = frozenset({b"content-length"})
_USUAL = frozenset({b"keep-alive", b"close", b"upgrade"})

# How a request's body is sent: lines of its head.
AS_SENT = b""
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"

# Of a header. aiohttp lets `Content-Length : 2` through, which is no such header to it, but may be one to others.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_TOKEN_IN_PATH = re.compile(rb"/s/[^/?#]+/%s(?![^/?#])" % FORM.encode())


class Place(NamedTuple):
    """Where a request comes from and goes to.

    `port`: of the sandbox; `hosts`: how it may name itself in a Location; `prefix`: of its URLs; empty for a request by
    the cookie; `remote`: the caller's address; `own_host`: the request's Host; `public_host`: that of its URLs, in
    lower case; `scheme`: in which callers reach the gateway; `cookie_path`: for the sandbox's cookies; `cookie`: the
    gateway's Set-Cookie, if it sets one.
    """

    port: int
    hosts: tuple[bytes, ...]
    prefix: bytes
    remote: bytes
    own_host: bytes
    public_host: bytes
    scheme: bytes
    cookie_path: bytes
    cookie: bytes | None


def named_in_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    """Return the headers that a Connection header names, in lower case."""
    names: frozenset[bytes] = frozenset()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":  # noqa: PLR2004 - the length of `connection`
            found = value.lower()
            if found not in _USUAL:
                names |= frozenset(part.strip() for part in found.split(b",")) - _KEPT
    return names


def request_head(method: str, target: bytes, headers: Sequence[Header], place: Place, framing: bytes) -> bytes:
    """Return the head of the request to the sandbox.

    `framing`: AS_SENT: a Content-Length goes through, if there is one; CHUNKED; or UPGRADE to a WebSocket. Raises
    ValueError for a header that would be read as more than one.
    """
    dropped = FROM_CALLERS
    if more := named_in_connection(headers):
        dropped |= more
    local = b"localhost:%d" % place.port
    out = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: " + local]
    for name, value in headers:
        key = name.lower()
        # CGI and WSGI have one name for X-Forwarded-For and X_Forwarded_For.
        if key in dropped or (b"_" in key and key.replace(b"_", b"-") in _DROPPED_WITH_UNDERSCORES):
            continue
        if key in _OF_REQUEST:
            changed = _OF_REQUEST[key](value, place, local)
            if changed is None:
                continue
            out.append(b"%s: %s" % (name, changed))
        else:
            out.append(b"%s: %s" % (name, value))
    out += (b"X-Forwarded-For: " + place.remote, b"X-Forwarded-Proto: " + place.scheme)
    if place.own_host:
        out.append(b"X-Forwarded-Host: " + place.own_host)
    if place.prefix:
        out.append(b"X-Forwarded-Prefix: " + place.prefix)
    head = b"\r\n".join(out)
    _check(head, len(out))
    return b"%s\r\n%s\r\n" % (head, framing)


def status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of a response."""
    return b"HTTP/1.1 %d %s" % (status, reason)


def response_head(
    first: bytes, headers: Sequence[Header], place: Place, more: bytes, *, without_length: bool = False
) -> bytes:
    """Return the head of the response to the caller.

    `first`: the status line; `more`: lines about the connection; `without_length`: whether a Content-Length does not go
    through. Raises ValueError for a header that would be read as more than one.
    """
    dropped = FROM_SANDBOXES_WITHOUT_LENGTH if without_length else FROM_SANDBOXES
    if named := named_in_connection(headers):
        dropped |= named
    out = [first]
    for name, value in headers:
        key = name.lower()
        if key in dropped:
            continue
        if not _NAME.fullmatch(name):
            raise ValueError("the name of a header is not valid")
        if key == b"set-cookie":
            changed = set_cookie(value, place.cookie_path)
            if changed is not None:
                out.append(b"%s: %s" % (name, changed))
        elif key == b"location":
            out.append(
                b"%s: %s"
                % (name, location(value, place.prefix, (*place.hosts, place.own_host.lower(), place.public_host)))
            )
        else:
            out.append(b"%s: %s" % (name, value))
    if place.cookie is not None:
        out.append(b"Set-Cookie: " + place.cookie)
    out.append(b"Referrer-Policy: no-referrer")
    head = b"\r\n".join(out)
    _check(head, len(out))
    return head + b"\r\n" + more + b"\r\n"


def switch_head(reason: bytes, headers: Sequence[Header], place: Place) -> bytes:
    """Return the head of the response that opens a WebSocket."""
    return response_head(status_line(101, reason), headers, place, UPGRADE, without_length=True)


def set_cookie(value: bytes, path: bytes) -> bytes | None:
    """Return a Set-Cookie with this path and no domain; None for the gateway's own cookie."""
    first, *attributes = value.split(b";")
    # Browsers send a cookie without a name as its value: `=a=b` as `a=b`.
    if first.strip(b" \t=").partition(b"=")[0].strip() == COOKIE:
        return None
    kept = [one for one in attributes if one.partition(b"=")[0].strip().lower() not in {b"path", b"domain"}]
    return b";".join([first, *kept, b" Path=" + path])


def location(value: bytes, prefix: bytes, hosts: Sequence[bytes]) -> bytes:
    """Return a Location with the prefix, if it is an absolute path or has one of the sandbox's hosts."""
    if value.startswith(b"/") and not value.startswith((b"//", b"/\\")):
        path = value
    else:
        scheme, slashes, rest = value.partition(b"//")
        if not slashes or scheme.lower() not in {b"http:", b"https:", b""}:
            return value
        found = re.match(rb"[^/?#\\]*", rest)
        end = found.end() if found else 0
        if rest[:end].lower() not in hosts:
            return value
        path = rest[end:]
        if not path.startswith(b"/"):
            path = b"/" + path
    is_below = path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {b"", b"/", b"?", b"#"}
    # Two slashes at its begin would name a host.
    return path if is_below and prefix else (prefix + path if prefix else b"/" + path.lstrip(b"/"))


def _origin(value: bytes, place: Place, local: bytes) -> bytes:
    return b"http://" + local if _is_own(value.partition(b"://")[2], place) else value


def _referer(value: bytes, place: Place, local: bytes) -> bytes | None:
    _, slashes, rest = value.partition(b"://")
    host, slash, path = rest.partition(b"/")
    path = slash + path
    if slashes and place.prefix and path.startswith(place.prefix) and path[len(place.prefix) :][:1] in {b"", b"/"}:
        return b"http://" + local + (path[len(place.prefix) :] or b"/")
    if _TOKEN_IN_PATH.search(value):
        return None
    return b"http://" + local + path if slashes and not place.prefix and _is_own(host, place) else value


def _cookie(value: bytes, _place: Place, _local: bytes) -> bytes | None:
    if COOKIE not in value:
        return value
    kept = [one.strip() for one in value.split(b";") if one.partition(b"=")[0].strip() != COOKIE]
    return b"; ".join(kept) or None


def _is_own(host: bytes, place: Place) -> bool:
    return bool(host) and host.lower() in {place.own_host.lower(), place.public_host}


_OF_REQUEST = {b"origin": _origin, b"referer": _referer, b"cookie": _cookie}


def _check(head: bytes, lines: int) -> None:
    if head.count(b"\n") != lines - 1 or head.count(b"\r") != lines - 1 or b"\0" in head:
        raise ValueError("a header has a line break in it")
