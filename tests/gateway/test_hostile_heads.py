"""Heads that a server behind the gateway could read in another way than the gateway."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.test_websocket_frames import HANDSHAKE
from tests.gateway.world import Recorder, World, detail


async def test_chunks_in_http_1_0_are_400(world: World) -> None:
    """Servers differ in whether they take the header there, and so in where the request ends (RFC 9112, 6.1)."""
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    answer = await world.ask(
        f"POST {prefix}/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert detail(answer) == "HTTP/1.0 has no Transfer-Encoding"
    assert sandbox.heads == []


@pytest.mark.parametrize(
    "host", ["a b", "a/b", 'a"b', "a<b>", "a@b", "a?b", "a#b", "a\\b", "a:b", "a:1:2", "[::1", "\xe4"]
)
async def test_a_host_that_is_none_is_400(world: World, host: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, answer = await world.get(f"{prefix}/", host=host)
    assert (status, detail(answer)) == (400, "The Host of the request is not valid")
    assert sandbox.heads == []


@pytest.mark.parametrize(
    "host", ["a", "gw.example:8003", "a_b.example", "a.example.", "127.0.0.1:80", "[::1]", "[::1]:8003", "a:", "xn--a"]
)
async def test_every_host_that_a_client_may_send_is_served(world: World, host: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    assert (await world.get(f"{prefix}/", host=host))[0] == 200
    assert sandbox.values("X-Forwarded-Host") == [host.encode()]


@pytest.mark.parametrize(
    "name",
    ["X_Forwarded_For", "X-Forwarded_Host", "x_api_key", "Transfer_Encoding", "Content_Length", "Proxy_Authorization"],
)
async def test_a_header_that_cgi_takes_for_a_dropped_one_is_dropped_too(world: World, name: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", f"{name}: 7\r\nX_Own: 8\r\n")
    assert sandbox.values(name) == []
    assert sandbox.values("X_Own") == [b"8"]


async def test_the_switch_to_a_websocket_has_no_length_whatever_the_sandbox_says(world: World) -> None:
    """A proxy in front might take the first frames for a body (RFC 9110, 8.6)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\n\x81\x02hi"
        )
        await reader.read()

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    head = await wire.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"content-length" not in head.lower()
    assert await wire.exactly(4) == b"\x81\x02hi"
