"""Responses reach the caller as the sandbox sent them, but for the rules about their headers and their framing."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import MakeWorld
from tests.gateway.world import Recorder, World, body, detail, headers_of

OWN_COOKIE = b"sandbox-gateway"


def responding(*headers: str, status: str = "200 OK", content: bytes = b"ok") -> Recorder:
    lines = "".join(f"{header}\r\n" for header in headers)
    return Recorder(f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode("latin-1") + content)


async def test_headers_come_in_order_and_none_is_made_up(world: World) -> None:
    prefix = await world.sandbox(responding("x-B: 1", "Server: mine", "X-a: é", "x-B: 2", status="299 My Reason"))
    _, answer = await world.get(f"{prefix}/")
    assert answer.split(b"\r\n") == [
        b"HTTP/1.1 299 My Reason",
        b"x-B: 1",
        b"Server: mine",
        b"X-a: \xe9",
        b"x-B: 2",
        b"Content-Length: 2",
        b"Referrer-Policy: no-referrer",
        b"Connection: close",
        b"",
        b"ok",
    ]


@pytest.mark.parametrize(
    ("sent", "comes"),
    [
        ("a=b", "a=b; Path={prefix}"),
        ("a=b; Path=/app; Domain=example.com; HttpOnly", "a=b; HttpOnly; Path={prefix}"),
        ("a=b;path=/;DOMAIN=x;Secure;SameSite=None", "a=b;Secure;SameSite=None; Path={prefix}"),
        ('a="path=/x"; Expires=Wed, 21 Oct 2026', 'a="path=/x"; Expires=Wed, 21 Oct 2026; Path={prefix}'),
    ],
)  # fmt: skip
async def test_a_cookie_gets_the_prefix_as_path_and_no_domain(world: World, sent: str, comes: str) -> None:
    prefix = await world.sandbox(responding(f"Set-Cookie: {sent}", "Set-Cookie: second=1"))
    _, answer = await world.get(f"{prefix}/")
    assert headers_of(answer, "Set-Cookie") == [
        comes.format(prefix=prefix).encode(), f"second=1; Path={prefix}".encode(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "comes"),
    [
        ("/login?next=/", "{prefix}/login?next=/"),
        ("http://localhost:{port}/a?b#c", "{prefix}/a?b#c"),
        ("http://127.0.0.1:{port}", "{prefix}/"),
        ("https://LOCALHOST:{port}?q", "{prefix}/?q"),
        ("//localhost:{port}/a", "{prefix}/a"),
        ("http://127.0.0.7:{port}/a", "{prefix}/a"),
        ("http://gw/a", "{prefix}/a"),
        ("http://gw{prefix}/a", "{prefix}/a"),
        ("{prefix}/a", "{prefix}/a"),
        ("http://localhost:1/a", "http://localhost:1/a"),
        ("https://example.com/a", "https://example.com/a"),
        ("//example.com/a", "//example.com/a"),
        ("next", "next"),
        ("?page=2", "?page=2"),
        ("mailto:a@localhost:{port}", "mailto:a@localhost:{port}"),
    ],
)
async def test_a_location_in_the_sandbox_gets_the_prefix(world: World, sent: str, comes: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox, host="127.0.0.7")
    places = {"port": world.pods.find("abc")[0].subject.port, "prefix": prefix}
    sandbox.response = responding(f"Location: {sent.format(**places)}", status="302 Found").response
    _, answer = await world.get(f"{prefix}/")
    assert headers_of(answer, "Location") == [comes.format(**places).encode()]


async def test_the_referrer_policy_is_always_none(world: World) -> None:
    prefix = await world.sandbox(responding("Referrer-Policy: unsafe-url"))
    _, answer = await world.get(f"{prefix}/")
    _, error = await world.get("/")
    assert headers_of(answer, "Referrer-Policy") == headers_of(error, "Referrer-Policy") == [b"no-referrer"]


@pytest.mark.parametrize(
    "name", ["Service-Worker-Allowed", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Keep-Alive", "X-Hop"]
)
async def test_what_concerns_more_than_the_sandbox_does_not_come(world: World, name: str) -> None:
    prefix = await world.sandbox(responding(f"{name}: x", "Connection: keep-alive, X-Hop"))
    _, answer = await world.get(f"{prefix}/")
    assert headers_of(answer, name) == []
    assert headers_of(answer, "Connection") == [b"close"]


async def test_head_keeps_the_length_and_has_no_body(world: World) -> None:
    prefix = await world.sandbox(Recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n"))
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"HEAD {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert headers_of(await wire.head(), "Content-Length") == [b"700"]


@pytest.mark.parametrize(
    ("response", "length"),
    [
        (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", []),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\nETag: x\r\n\r\n", [b"700"]),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", []),
    ],
)
async def test_204_and_304_have_no_body(world: World, response: bytes, length: list[bytes]) -> None:
    prefix = await world.sandbox(Recorder(response))
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = await wire.head()
        assert (headers_of(head, "Content-Length"), headers_of(head, "Transfer-Encoding")) == (length, [])


async def test_a_compressed_body_comes_as_it_was_sent(world: World) -> None:
    prefix = await world.sandbox(responding("Content-Encoding: gzip", content=b"\x1f\x8bno gzip at all"))
    _, answer = await world.get(f"{prefix}/", "Accept-Encoding: gzip\r\n")
    assert body(answer) == b"\x1f\x8bno gzip at all"


async def test_chunks_come_as_they_are_sent_and_trailers_are_dropped(world: World) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5;ext=1\r\nfirst\r\n")
        await gate.wait()
        writer.write(b"6\r\nsecond\r\n0\r\nX-T: 1\r\n\r\n")
        await reader.read()

    prefix = await world.sandbox(slow)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head = await wire.head()
    assert headers_of(head, "Transfer-Encoding") == [b"chunked"]
    assert headers_of(head, "Trailer") == []
    assert await wire.exactly(10) == b"5\r\nfirst\r\n"  # while the sandbox still holds the rest back
    gate.set()
    assert await wire.rest() == b"6\r\nsecond\r\n0\r\n\r\n"


async def test_a_head_comes_before_the_first_byte_of_its_body(world: World) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 3\r\n\r\n")
        await gate.wait()
        writer.write(b"end")

    prefix = await world.sandbox(slow)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert (await wire.head()).startswith(b"HTTP/1.1 200")
    gate.set()
    assert await wire.rest() == b"end"


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")


async def test_a_body_that_ends_with_its_connection_comes_in_chunks(world: World) -> None:
    prefix = await world.sandbox(closing)
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert headers_of(await wire.head(), "Transfer-Encoding") == [b"chunked"]
        got = await wire.reader.readuntil(b"0\r\n\r\n")
        assert got.replace(b"9\r\nall of it\r\n", b"all of it") == b"all of it0\r\n\r\n"


async def test_a_caller_of_http_1_0_gets_no_chunks(world: World) -> None:
    prefix = await world.sandbox(Recorder(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
    answer = await world.ask(f"GET {prefix}/ HTTP/1.0\r\n\r\n".encode())
    assert (headers_of(answer, "Transfer-Encoding"), body(answer)) == ([], b"ok")


async def test_a_caller_of_http_1_0_may_keep_its_connection(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"GET {prefix}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
        assert headers_of(await wire.head(), "Connection") == [b"keep-alive"]
        assert await wire.exactly(2) == b"ok"


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: b=c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_response_that_is_not_valid_is_502(world: World, garbage: bytes) -> None:
    prefix = await world.sandbox(Recorder(garbage))
    status, answer = await world.get(f"{prefix}/")
    assert status == 502
    assert detail(answer) == "The sandbox's response is not valid HTTP"
    assert b"Set-Cookie" not in answer


async def test_a_sandbox_that_closes_without_a_response_is_502(world: World) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    prefix = await world.sandbox(silent)
    status, answer = await world.get(f"{prefix}/")
    assert (status, detail(answer)) == (502, "The sandbox closed the connection before it sent a response")


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
@pytest.mark.parametrize("last", [b"", b"nonsense"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_response_that_breaks_off_is_no_whole_response(
    world: World, part: bytes, version: str, last: bytes
) -> None:
    gate = asyncio.Event()

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        await gate.wait()
        writer.write(last)

    prefix = await world.sandbox(dying)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    gate.set()
    assert await wire.is_cut()


async def test_on_an_origin_of_its_own_a_sandboxes_cookie_is_for_all_of_it(make_world: MakeWorld) -> None:
    world = await make_world(url="http://{sandbox_id}.gw.example")
    prefix = await world.sandbox(
        responding("Set-Cookie: a=b; Path=/x; Domain=gw.example", "Set-Cookie: sandbox-gateway=x")
    )
    _, answer = await world.get(f"{prefix}/", host="abc.gw.example")
    theirs = [value for value in headers_of(answer, "Set-Cookie") if not value.startswith(OWN_COOKIE)]
    ours = [value for value in headers_of(answer, "Set-Cookie") if value.startswith(OWN_COOKIE)]
    assert theirs == [b"a=b; Path=/"]
    assert ours == [f"sandbox-gateway={prefix.split('/')[3]}; Path=/; HttpOnly; SameSite=Lax".encode()]
