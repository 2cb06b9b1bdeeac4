"""Connections that send nothing, or never a whole head: they end soon, and take no room from callers with a token."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.gateway.conftest import MakeWorld
from tests.gateway.world import Recorder, Wire, World, detail, headers_of, until

# More than the gateway of these tests may have.
MANY = 60
HEAD = 0.3


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await reader.read()


async def _idle(world: World, sent: bytes, number: int = MANY) -> list[Wire]:
    wires = [await world.connect() for _ in range(number)]
    for wire in wires:
        with contextlib.suppress(ConnectionError):  # it has made room
            await wire.send(sent)
    return wires


@pytest.mark.deadlines(gateway_head=HEAD, gateway_keepalive=3600.0)
async def test_a_connection_that_sends_nothing_is_closed_without_an_answer(world: World) -> None:
    wires = await _idle(world, b"")
    assert [await wire.rest() for wire in wires] == [b""] * MANY
    assert not world.gateway.limit.open


@pytest.mark.deadlines(gateway_head=HEAD, gateway_keepalive=3600.0)
@pytest.mark.parametrize("sent", [b"G", b"GET /s/abc/x HTTP/1.1\r\nHost: a\r\n", b"\r\n"])
async def test_half_a_head_is_408_in_json(world: World, sent: bytes) -> None:
    for wire in await _idle(world, sent, 3):
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert headers_of(answer, "Connection") == [b"close"]
        assert detail(answer) == "The head of the request was not complete within 0.3 s"
    await until(lambda: not world.gateway.limit.open)
    assert world.counts.failures == {"slow-head": 3}
    assert world.counts.statuses == {("http", 408): 3}


@pytest.mark.deadlines(gateway_head=HEAD, gateway_keepalive=3600.0)
async def test_a_head_that_comes_byte_by_byte_has_no_more_time(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    await wire.exactly(2)

    async def drip() -> None:
        while True:
            await wire.send(b"G" if not world.counts.failures else b"")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    wire.writer.write(b"GET /x")
    assert b" 408 " in await wire.head()
    dripping.cancel()
    await asyncio.wait([dripping])


@pytest.mark.deadlines(gateway_head=HEAD)
async def test_the_time_for_a_head_does_not_end_what_is_longer(world: World) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"hi"
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    prefix = await world.sandbox(slow)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh".encode())
    await until(lambda: world.counts.open)
    late = await world.connect()
    assert await late.rest() == b"", "as long as that request has lasted by now"
    await wire.send(b"i")
    gate.set()
    assert (await wire.head()).startswith(b"HTTP/1.1 200 ")
    assert await wire.exactly(2) == b"ok"


@pytest.mark.deadlines(gateway_head=3600.0, gateway_keepalive=3600.0)
@pytest.mark.parametrize("sent", [b"", b"GET /s/abc/", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_connections_without_a_token_keep_no_caller_out(make_world: MakeWorld, sent: bytes) -> None:
    world = await make_world(most=20)
    prefix = await world.sandbox(_endless)
    served = await world.sandbox(Recorder(), "other", uid="u2")
    kept = await world.connect()
    await kept.send(f"GET {served}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await kept.head()
    await kept.exactly(2)
    stream = await world.connect()
    await stream.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await stream.head()
    wires = await _idle(world, sent)
    for _ in range(3):
        assert (await world.get(f"{served}/"))[0] == 200
    assert world.gateway.limit.open <= 20
    # Those with a token stay: one is under way, and the other one was.
    await kept.send(f"GET {served}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (await kept.head()).startswith(b"HTTP/1.1 200 ")
    assert await stream.exactly(7) == b"2\r\nhi\r\n"
    await until(lambda: sum(wire.reader.at_eof() for wire in wires) >= MANY - 20)


@pytest.mark.deadlines(gateway_keepalive=3600.0)
async def test_a_connection_that_was_one_too_many_is_served_when_there_is_room(make_world: MakeWorld) -> None:
    world = await make_world(most=1)
    busy = await world.connect()
    await busy.send(f"GET {await world.sandbox(_endless)}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await busy.head()
    served = await world.sandbox(Recorder(), "other", uid="u2")
    wire = await world.connect()
    request = f"GET {served}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    await wire.send(request)
    head = await wire.head()
    assert head.startswith(b"HTTP/1.1 503 ")
    await wire.exactly(int(headers_of(head, "Content-Length")[0]))
    busy.abort()
    await until(lambda: world.gateway.limit.open == 1)
    await wire.send(request)
    assert (await wire.head()).startswith(b"HTTP/1.1 200 ")
