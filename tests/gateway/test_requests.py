"""Requests arrive as they were sent, but for the rules about their headers."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import MakeWorld
from tests.gateway.world import Recorder, World, body, detail, headers_of


async def test_a_request_reaches_the_sandbox_and_its_response_the_caller(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, answer = await world.get(f"{prefix}/v1/sandbox?a=b")
    assert (status, body(answer)) == (200, b"ok")
    assert sandbox.lines()[0] == b"GET /v1/sandbox?a=b HTTP/1.1"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("", "/"),
        ("?a=1", "/?a=1"),
        ("/", "/"),
        ("/?", "/?"),
        ("/x?", "/x?"),
        ("//a//b/", "//a//b/"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/%2Fa%2f%41%20?q=%26&r=a+b", "/%2Fa%2f%41%20?q=%26&r=a+b"),
        ('/{"a"}|^`', '/{"a"}|^`'),
        ("/a?b?c=/d&e", "/a?b?c=/d&e"),
    ],
)
async def test_path_and_query_arrive_as_they_were_sent(world: World, sent: str, arrives: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(prefix + sent)
    assert sandbox.lines()[0] == f"GET {arrives} HTTP/1.1".encode("latin-1")


async def test_a_path_that_is_not_ascii_is_refused_since_http_has_none(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, answer = await world.get(f"{prefix}/ä")
    assert (status, detail(answer), sandbox.heads) == (400, "The request is not valid HTTP", [])


async def test_a_target_with_scheme_and_host_is_read_by_its_path(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"http://elsewhere:1{prefix}/a?b")
    assert sandbox.lines()[0] == b"GET /a?b HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_any_method_but_connect_is_forwarded(world: World, method: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    if method == "HEAD":
        sandbox.response = sandbox.response.removesuffix(b"ok")
    status, answer = await world.get(f"{prefix}/", method=method)
    assert (status, body(answer)) == (200, b"" if method == "HEAD" else b"ok")
    assert sandbox.lines()[0] == f"{method} / HTTP/1.1".encode()


async def test_connect_is_405(world: World) -> None:
    status, answer = await world.get("example.com:443", method="CONNECT")
    assert (status, detail(answer)) == (405, "CONNECT is not supported")


async def test_headers_arrive_in_order_and_as_they_were_written_and_none_is_made_up(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", "x-ONE: 1\r\nAuthorization: Bearer t\r\nX-Two:   a, b\r\nx-one: é\r\n")
    assert sandbox.lines()[1:] == [
        f"Host: localhost:{world.pods.find('abc')[0].subject.port}".encode(),
        b"x-ONE: 1",
        b"Authorization: Bearer t",
        b"X-Two: a, b",
        b"x-one: \xe9",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: gw",
        b"X-Forwarded-Prefix: " + prefix.encode(),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "X-API-Key: secret",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Trailer: x",
        "Upgrade: h2c",
    ],
)
async def test_what_concerns_the_gateway_alone_does_not_arrive(world: World, header: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", f"{header}\r\n")
    assert sandbox.values(header.split(":", maxsplit=1)[0]) == []
    assert sandbox.values("Connection") == []


async def test_headers_that_connection_names_do_not_arrive(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    request = (
        f"POST {prefix}/ HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\nX-Other: 2\r\nContent-Length: 2\r\n"
        "Connection: close, X-Mine, content-length, host\r\n\r\nhi"
    )
    await world.ask(request.encode())
    assert (sandbox.values("X-Mine"), sandbox.values("X-Other")) == ([], [b"2"])
    assert (sandbox.values("Content-Length"), sandbox.bodies) == ([b"2"], [b"hi"])
    assert len(sandbox.values("Host")) == 1


async def test_what_a_caller_says_of_its_way_is_replaced(make_world: MakeWorld) -> None:
    world = await make_world(url="https://gw.example.com")
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    made_up = "".join(f"X-Forwarded-{name}: evil\r\n" for name in ("For", "Proto", "Host", "Prefix"))
    await world.get(f"{prefix}/", made_up, host="gw.example.com")
    assert sandbox.values("X-Forwarded-For") == [b"127.0.0.1"]
    assert sandbox.values("X-Forwarded-Proto") == [b"https"]
    assert sandbox.values("X-Forwarded-Host") == [b"gw.example.com"]
    assert sandbox.values("X-Forwarded-Prefix") == [prefix.encode()]


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("http://gw:8003", True),
        ("https://GW:8003", True),
        ("http://gw", False),
        ("http://evil", False),
        ("null", False),
    ],
)
async def test_the_gateways_own_origin_becomes_the_sandboxes(world: World, origin: str, is_own: bool) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", f"Origin: {origin}\r\n", host="gw:8003")
    own = f"http://localhost:{world.pods.find('abc')[0].subject.port}"
    assert sandbox.values("Origin") == [(own if is_own else origin).encode()]


async def test_the_origin_of_the_gateways_url_is_its_own_behind_a_proxy_that_changes_host(
    make_world: MakeWorld,
) -> None:
    world = await make_world(url="https://gw.example.com")
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", "Origin: https://gw.example.com\r\n", host="gateway.internal:8003")
    assert sandbox.values("Origin") == [f"http://localhost:{world.pods.find('abc')[0].subject.port}".encode()]


@pytest.mark.parametrize(
    ("referer", "arrives"),
    [
        ("http://gw{prefix}/a/b?c", "http://localhost:{port}/a/b?c"),
        ("http://gw{prefix}", "http://localhost:{port}/"),
        ("http://gw/s/other/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/a", None),
        ("http://gw/s/other/3000.1795341600.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None),
        ("http://gw/s/other/3000..AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA?b", None),
        ("https://elsewhere.example/page", "https://elsewhere.example/page"),
        ("https://elsewhere.example/s/a/b", "https://elsewhere.example/s/a/b"),
    ],
)
async def test_a_referer_loses_the_prefix_or_goes(world: World, referer: str, arrives: str | None) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    port = world.pods.find("abc")[0].subject.port
    await world.get(f"{prefix}/", f"Referer: {referer.format(prefix=prefix)}\r\n")
    assert sandbox.values("Referer") == ([] if arrives is None else [arrives.format(port=port).encode()])


async def test_a_token_for_another_port_leads_there(world: World) -> None:
    await world.sandbox(Recorder())
    other = Recorder()
    port = await world.serve(other)
    status, _ = await world.get(world.prefix(world.pods.find("abc")[0], port=port) + "/")
    assert status == 200
    assert other.values("Host") == [f"localhost:{port}".encode()]


async def test_connections_are_used_again(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    for method in ("HEAD", "GET", "POST"):
        if method == "HEAD":
            sandbox.response = b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n"
        else:
            sandbox.response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        await world.get(f"{prefix}/", method=method)
    assert (len(sandbox.heads), sandbox.connections) == (3, 1)


async def test_one_connection_of_a_caller_serves_many_requests(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    wire = await world.connect()
    for _ in range(3):
        await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert headers_of(await wire.head(), "Connection") == []
        assert await wire.exactly(2) == b"ok"
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 3)
    for _ in range(3):
        await wire.head()
        await wire.exactly(2)


async def test_long_headers_and_paths_go_through(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, _ = await world.get(f"{prefix}/{'a' * 30_000}", f"Cookie: {'c' * 30_000}\r\n")
    assert status == 200
    assert sandbox.values("Cookie") == [b"c" * 30_000]


async def test_a_head_that_is_too_long_is_refused_in_json(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    status, answer = await world.get(f"{prefix}/", f"X-Long: {'a' * 70_000}\r\n")
    assert (status, detail(answer)) == (400, "The request is not valid HTTP")
