"""Requests without an API key, byte by byte over sockets of both families: no way around the checks of callers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from aiohttp import web
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sandboxes.addresses import Address
from sandboxes.api.server import serve
from tests.api.conftest import URL, MakeApp
from tests.api.examples import SETTINGS
from tests.fakes import FakeCluster
from tests.waiting import until

BODY = b'{"sandbox_id": "a"}'
ALLOWED = "sandboxes.example"
REFUSALS = {400, 401, 403, 404, 405}


@dataclass(frozen=True)
class Served:
    """The service on one port of IPv4 and one of IPv6."""

    addresses: tuple[tuple[str, int], ...]
    cluster: FakeCluster
    log: pytest.LogCaptureFixture

    async def send(self, line: bytes, *headers: bytes, listener: int = 0, body: bytes = BODY) -> int:
        """Send a request and return its status; fails the test unless the response is JSON and the log has no bug.

        A refusal has a `detail`, and reaches no cluster.
        """
        self.cluster.calls.clear()
        self.log.clear()
        reader, writer = await asyncio.open_connection(*self.addresses[listener])
        lines = (line, *headers, b"Connection: close", b"Content-Length: %d" % len(body), b"", body)
        writer.write(b"\r\n".join(lines))
        top, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        status = int(top.split()[1])
        if status != 200:
            assert status in REFUSALS
            assert b"Content-Type: application/json" in top
            assert json.loads(answer)["detail"]
            assert self.cluster.calls == []
        assert not [record for record in self.log.records if record.exc_info or record.levelno >= logging.ERROR]
        return status

    async def create(self, *headers: bytes, listener: int = 0, version: bytes = b"1.1") -> int:
        """Send a create with these headers and return its status."""
        return await self.send(b"POST " + URL.encode() + b" HTTP/" + version, *headers, listener=listener)


@pytest.fixture
async def served(make_app: MakeApp, cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    async def app() -> web.Application:
        return make_app(ALLOWED_HOSTS=ALLOWED)

    caplog.set_level(logging.INFO)
    task = asyncio.create_task(serve(app(), Address(("127.0.0.1", "::1"), 0)))
    await until(lambda: "listening on" in caplog.text)
    found = re.findall(r"http://\[?([0-9.:]+?)\]?:(\d+)(?=,|\s|$)", caplog.text)
    addresses = tuple((host, int(port)) for host, port in found)
    assert [host for host, _ in addresses] == ["127.0.0.1", "::1"]
    yield Served(addresses, cluster, caplog)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


# Bytes that HTTP allows in a header (RFC 9110, 5.5).
VALUE = st.lists(st.sampled_from(bytes([9, *range(32, 127), *range(128, 256)])), max_size=30).map(bytes)
LISTENER = st.sampled_from([0, 1])
VERSION = st.sampled_from([b"1.0", b"1.1"])
SAFE = [b"localhost", b"127.0.0.1", b"[::1]", b"192.0.2.7", b"provisioner", b"host.docker.internal", b"p.ns.svc",
        b"p.ns.svc.cluster.local", ALLOWED.encode()]  # fmt: skip
PORT = st.just(b"") | st.integers(1, 65535).map(b":%d".__mod__)
SAFE_HOST = st.builds(bytes.__add__, st.sampled_from(SAFE), PORT)
LABEL = st.from_regex(rb"\A[a-z0-9_]([a-z0-9_-]{0,5}[a-z0-9_])?\Z")
DOTTED = st.lists(LABEL, min_size=2, max_size=4).map(b".".join)
NUMBERS = re.compile(rb"(\d{1,3}\.){3}\d{1,3}")


def is_allowed(name: bytes) -> bool:
    return name in SAFE or name.endswith((b".svc", b".svc.cluster.local")) or NUMBERS.fullmatch(name) is not None


def cased(name: bytes, value: bytes) -> st.SearchStrategy[bytes]:
    """Return header lines of this name in any case, with optional white space."""
    return st.sampled_from([name, name.lower(), name.upper()]).flatmap(
        lambda one: st.sampled_from([b": ", b":", b":\t "]).map(lambda colon: one + colon + value)
    )


ANY_HEADER = st.sampled_from([b"Host", b"Origin", b"Sec-Fetch-Site", b"X-Forwarded-For"]).flatmap(
    lambda name: (SAFE_HOST | VALUE | SAFE_HOST.map(b"http://".__add__) | st.sampled_from([b"none", b"null"])).flatmap(
        lambda value: cased(name, value)
    )
)


@SETTINGS
@given(headers=st.lists(ANY_HEADER, max_size=5), version=VERSION, listener=LISTENER)
@example(headers=[b"Host: localhost"], version=b"1.1", listener=0)
@example(headers=[b"Host: localhost", b"X-Forwarded-For: ::1"], version=b"1.1", listener=1)
async def test_any_headers_in_any_number_get_json_and_no_traceback(
    served: Served, headers: list[bytes], version: bytes, listener: int
) -> None:
    status = await served.create(*headers, version=version, listener=listener)
    if status == 200:
        names = [header.partition(b":")[0].lower() for header in headers]
        assert names.count(b"host") == 1
        assert b"x-forwarded-for" not in names


@SETTINGS
@given(host=SAFE_HOST, origin=SAFE_HOST.map(b"http://".__add__) | VALUE, others=st.lists(VALUE, max_size=1),
       version=VERSION, listener=LISTENER)  # fmt: skip
@example(host=b"localhost:8002", origin=b"http://localhost:8002", others=[], version=b"1.1", listener=0)
@example(host=b"[::1]:8002", origin=b"http://[::1]:8002", others=[], version=b"1.0", listener=1)
@example(host=b"localhost", origin=b"null", others=[], version=b"1.1", listener=0)
@example(host=b"localhost", origin=b"http://localhost", others=[b"null"], version=b"1.1", listener=0)
async def test_a_create_with_another_origin_than_this_host_and_port_is_403(
    served: Served, host: bytes, origin: bytes, others: list[bytes], version: bytes, listener: int
) -> None:
    host, origin = host.removesuffix(b":80"), origin.removesuffix(b":80")
    headers = [b"Host: " + host, *(b"Origin: " + one for one in (origin, *others))]
    own = {b"http://" + host}
    if host.endswith(b":443"):
        own |= {b"https://" + host, b"https://" + host.removesuffix(b":443")}
    sent = {one.strip(b" \t") for one in (origin, *others)}
    expected = {200} if sent <= own else {403}
    assert await served.create(*headers, version=version, listener=listener) in expected


@SETTINGS
@given(site=st.sampled_from([b"same-origin", b"none", b"same-site", b"cross-site"]) | VALUE, listener=LISTENER,
       others=st.lists(st.sampled_from([b"none", b"cross-site"]), max_size=2))  # fmt: skip
async def test_a_create_for_a_page_of_another_site_is_403(
    served: Served, site: bytes, others: list[bytes], listener: int
) -> None:
    sites = [site.strip(b" \t"), *others]
    headers = (b"Sec-Fetch-Site: " + one for one in sites)
    is_own = {one.lower() for one in sites} <= {b"same-origin", b"none"}
    assert await served.create(b"Host: localhost", *headers, listener=listener) == (200 if is_own else 403)


@SETTINGS
@given(name=DOTTED, port=PORT, dot=st.sampled_from([b"", b"."]), version=VERSION, listener=LISTENER)
@example(name=b"evil.example", port=b":8002", dot=b"", version=b"1.1", listener=1)
@example(name=b"localhost.evil.example", port=b"", dot=b".", version=b"1.1", listener=0)
@example(name=b"svc.cluster.local.example", port=b"", dot=b"", version=b"1.0", listener=0)
async def test_a_host_that_an_attacker_may_own_is_403(
    served: Served, name: bytes, port: bytes, dot: bytes, version: bytes, listener: int
) -> None:
    assume(not is_allowed(name))
    host = name + dot + port
    headers = (b"Host: " + host, b"Origin: http://" + host, b"Sec-Fetch-Site: same-origin")
    assert await served.create(*headers, version=version, listener=listener) == 403
    assert await served.send(b"GET /metrics/ HTTP/" + version, *headers, listener=listener) == 403


@SETTINGS
@given(host=SAFE_HOST, version=VERSION, listener=LISTENER)
@example(host=b"sandboxes.example:8002", version=b"1.1", listener=0)
async def test_a_host_that_no_attacker_can_own_is_200(
    served: Served, host: bytes, version: bytes, listener: int
) -> None:
    assert await served.create(b"Host: " + host.upper(), version=version, listener=listener) == 200


# Request targets.

SEGMENT = st.sampled_from([b"", b"api", b"%61pi", b"ap%69", b"API", b"sandboxes", b"sandbox%65s", b"a", b"metrics",
                           b"%6detrics", b"capabilities", b".", b"..", b"%2e", b"%2e%2e", b"%2f", b"api%2fsandboxes",
                           b"touch", b"renew", b"\\", b";", b"%00", b"%ff", b"%", b"*", b"@evil.example"])  # fmt: skip
PATH = st.lists(SEGMENT, min_size=1, max_size=5).map(lambda segments: b"/" + b"/".join(segments))
TAIL = st.sampled_from([b"", b"?", b"?a=/health", b"#", b"#/health"])
PREFIX = st.sampled_from([b"", b"", b"http://localhost", b"http://localhost:8002", b"http://evil.example", b"//", b"x"])
METHOD = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PROPFIND"])
SIGNS = [b"Origin: http://evil.example", b"Origin: null", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-site"]


@SETTINGS
@given(method=METHOD, prefix=PREFIX, path=PATH, tail=TAIL, sign=st.sampled_from(SIGNS), listener=LISTENER)
@example(method=b"POST", prefix=b"", path=b"/api/sandboxes", tail=b"", sign=SIGNS[0], listener=1)
@example(method=b"POST", prefix=b"", path=b"/api/sandboxes/", tail=b"", sign=SIGNS[1], listener=0)
@example(method=b"POST", prefix=b"", path=b"/%61pi/sandboxes", tail=b"?", sign=SIGNS[2], listener=0)
@example(method=b"POST", prefix=b"http://localhost", path=b"/api/sandboxes", tail=b"", sign=SIGNS[0], listener=0)
@example(method=b"GET", prefix=b"", path=b"/metrics/", tail=b"", sign=SIGNS[3], listener=0)
async def test_no_target_gets_a_page_of_another_site_past_the_checks(
    served: Served, method: bytes, prefix: bytes, path: bytes, tail: bytes, sign: bytes, listener: int
) -> None:
    line = b" ".join((method, prefix + path + tail, b"HTTP/1.1"))
    if method == b"HEAD":  # a response without a body
        line = line.replace(b"HEAD", b"GET", 1)
    assert await served.send(line, b"Host: localhost:8002", sign, listener=listener) in REFUSALS


@pytest.mark.parametrize("path", [URL, f"{URL}/", f"{URL}?x", f"{URL}#x", "/%61pi/sandboxes", "/api/sandbox%65s/"])
async def test_every_spelling_that_creates_is_checked(served: Served, path: str) -> None:
    line = b"POST " + path.encode() + b" HTTP/1.1"
    assert await served.send(line, b"Host: localhost") == 200
    assert await served.send(line, b"Host: localhost", b"Origin: http://evil.example") == 403
    assert await served.send(line, b"Host: evil.example") == 403


@pytest.mark.parametrize("path", ["//api/sandboxes", "/x/../api/sandboxes", "/./api/sandboxes", "/API/sandboxes"])
async def test_other_spellings_are_404_for_every_caller(served: Served, path: str) -> None:
    line = b"POST " + path.encode() + b" HTTP/1.1"
    assert await served.send(line, b"Host: localhost") == 404
    assert await served.send(line, b"Host: localhost", b"Origin: http://evil.example") == 404


@SETTINGS
@given(target=SAFE_HOST | DOTTED, host=SAFE_HOST | DOTTED, origin=st.none() | SAFE_HOST | DOTTED, version=VERSION)
@example(target=b"evil.example", host=b"localhost", origin=None, version=b"1.1")
@example(target=b"localhost", host=b"evil.example", origin=None, version=b"1.1")
@example(target=b"localhost", host=b"localhost", origin=None, version=b"1.1")
@example(target=b"localhost:8002", host=b"localhost:8002", origin=b"localhost:8002", version=b"1.0")
@example(target=b"localhost:8003", host=b"localhost:8002", origin=b"localhost:8002", version=b"1.1")
async def test_the_host_of_an_absolute_target_counts_like_the_header(
    served: Served, target: bytes, host: bytes, origin: bytes | None, version: bytes
) -> None:
    named = [one.removesuffix(b":80") for one in (target, host, origin) if one is not None]
    headers = [b"Host: " + named[1], *(b"Origin: http://" + one for one in named[2:])]
    line = b"POST http://" + named[0] + URL.encode() + b" HTTP/" + version
    is_safe = all(is_allowed(re.sub(rb":\d+\Z", b"", one)) for one in named[:2])
    is_own = len(named) == 2 or len(set(named)) == 1
    status = await served.send(line, *headers)
    assert status == (200 if is_safe and is_own else 403)


@pytest.mark.parametrize("target", ["user@localhost", "user:x@localhost", "localhost@evil.example", "[::1].example"])
async def test_an_absolute_target_with_more_than_host_and_port_is_refused(served: Served, target: str) -> None:
    line = b"POST http://" + target.encode() + URL.encode() + b" HTTP/1.1"
    assert await served.send(line, b"Host: localhost") in {400, 403}


@pytest.mark.parametrize("listener", [0, 1])
async def test_a_create_without_a_host_is_refused_in_every_version(served: Served, listener: int) -> None:
    assert await served.create(version=b"1.0", listener=listener) == 403
    assert await served.create(version=b"1.1", listener=listener) == 400
    line = b"POST http://localhost" + URL.encode() + b" HTTP/1.0"
    assert await served.send(line, listener=listener) == 403


@pytest.mark.parametrize("listener", [0, 1])
async def test_two_host_headers_are_400(served: Served, listener: int) -> None:
    for second in (b"Host: localhost", b"Host: evil.example", b"host:evil.example"):
        assert await served.create(b"Host: localhost", second, listener=listener) == 400
        assert await served.create(second, b"Host: localhost", listener=listener) == 400


async def test_a_later_request_of_a_connection_is_checked(served: Served) -> None:
    """Both are sent at once; the first one's answer leaves the connection open."""
    first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = (
        b"POST " + URL.encode() + b" HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
        b"Connection: close\r\nContent-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
    )
    reader, writer = await asyncio.open_connection(*served.addresses[0])
    writer.write(first + second)
    answers = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answers) == [b"200", b"403"]
    assert served.cluster.calls == []


@pytest.mark.parametrize(
    "line",
    [
        b"Origin : http://evil.example",
        b" Origin: http://evil.example",
        b"X: y\r\n Origin: http://evil.example",
        b"X: y\rOrigin: http://evil.example",
        b"X: y\nOrigin: http://evil.example",
        b"Origin\x00: http://evil.example",
        b"Origin: http://evil.example\x00",
        b"Origin",
    ],
)
async def test_a_header_that_breaks_http_hides_no_origin(served: Served, line: bytes) -> None:
    assert await served.create(b"Host: localhost", line) in {400, 403}
