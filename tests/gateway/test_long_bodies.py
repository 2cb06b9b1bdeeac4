"""Long bodies with a Content-Length, which go past the parser: byte for byte, not one more, and never half as whole."""

from __future__ import annotations

import asyncio
import random
import socket
import struct

import pytest

from tests.gateway.world import PATIENCE, Recorder, World, body, until

# More than the gateway reads at once, and no multiple of it.
LONG = random.Random(1).randbytes(3 * 2**20 + 7)  # noqa: S311 - no secret
HALF = len(LONG) // 2
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LONG)


def put(prefix: str, *more: str) -> bytes:
    lines = (f"PUT {prefix}/ HTTP/1.1", "Host: a", f"Content-Length: {len(LONG)}", *more)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def test_long_responses_arrive_whole_over_one_connection(world: World) -> None:
    sandbox = Recorder(RESPONSE + LONG)
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    for _ in range(3):
        await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await wire.head()
        assert await wire.exactly(len(LONG)) == LONG
    assert sandbox.connections == 1


async def test_long_uploads_arrive_whole_over_one_connection(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    for _ in range(3):
        await wire.send(put(prefix) + LONG)
        await wire.head()
        assert await wire.exactly(2) == b"ok"
    assert sandbox.bodies == [LONG] * 3
    assert sandbox.connections == 1


async def test_a_request_right_after_a_long_upload_is_another_request(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    await wire.send(put(prefix) + LONG + f"GET {prefix}/next HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for _ in range(2):
        assert (await wire.head()).startswith(b"HTTP/1.1 200")
        assert await wire.exactly(2) == b"ok"
    assert sandbox.bodies == [LONG, b""]
    assert sandbox.heads[1].startswith(b"GET /next ")


async def test_what_follows_a_long_upload_without_being_http_is_400(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    answers = await world.ask(put(prefix) + LONG + b"nonsense\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in answers
    assert sandbox.bodies == [LONG]


async def test_what_follows_a_long_response_reaches_no_caller(world: World) -> None:
    sandbox = Recorder(RESPONSE + LONG + RESPONSE)
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await wire.head()
        assert await wire.exactly(len(LONG)) == LONG
    assert sandbox.connections == 2, "a connection was used again after a surplus"
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert body(await wire.rest()) == LONG


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_long_response_that_breaks_off_never_looks_whole(world: World, is_reset: bool) -> None:
    has_half = asyncio.Event()

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(RESPONSE + LONG[:HALF])
        await has_half.wait()
        if is_reset:
            one = writer.get_extra_info("socket")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    prefix = await world.sandbox(breaking)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await wire.head()
    assert await wire.exactly(HALF) == LONG[:HALF]
    has_half.set()
    assert await wire.is_cut()
    await until(lambda: not world.counts.open)
    assert world.counts.failures["broken"] == 1


async def test_a_caller_that_leaves_in_a_long_upload_ends_the_sandboxes_connection(world: World) -> None:
    has_half, is_over = asyncio.Event(), asyncio.Event()
    got = b""

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001 - its way
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        got = await reader.readexactly(HALF)
        has_half.set()
        try:
            await reader.read()
        finally:
            is_over.set()

    prefix = await world.sandbox(reading)
    wire = await world.connect()
    await wire.send(put(prefix) + LONG[:HALF])
    await asyncio.wait_for(has_half.wait(), PATIENCE)
    wire.close()
    await asyncio.wait_for(is_over.wait(), PATIENCE)
    assert got == LONG[:HALF]
    await until(lambda: not world.counts.open)


async def test_a_long_body_reaches_a_slow_reader_unchanged_in_both_directions(world: World) -> None:
    """Each side reads little at a time, so the gateway holds both back and goes on, again and again."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(RESPONSE)
        left = len(LONG)
        while left:
            data = await reader.read(min(left, 50_000))
            left -= len(data)
            writer.write(data)
            await writer.drain()
        await reader.read()

    prefix = await world.sandbox(echo)
    wire = await world.connect()
    sending = asyncio.create_task(wire.send(put(prefix) + LONG))
    await wire.head()
    got = b""
    while len(got) < len(LONG):
        await asyncio.sleep(0)
        got += await asyncio.wait_for(wire.reader.read(30_000), PATIENCE)
    assert got == LONG
    await sending


async def test_a_long_upload_waits_for_the_sandboxes_100(world: World) -> None:
    got = b""

    async def willing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = await reader.readexactly(len(LONG))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    prefix = await world.sandbox(willing)
    wire = await world.connect()
    await wire.send(put(prefix, "Expect: 100-continue"))
    assert (await wire.head()).startswith(b"HTTP/1.1 100")
    await wire.send(LONG)
    assert (await wire.head()).startswith(b"HTTP/1.1 200")
    assert got == LONG


async def test_after_an_early_response_the_rest_of_a_long_upload_is_dropped(world: World) -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(HALF)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    prefix = await world.sandbox(refusing)
    wire = await world.connect()
    await wire.send(put(prefix) + LONG[:HALF])
    head = await wire.head()
    assert head.startswith(b"HTTP/1.1 413")
    assert b"\r\nConnection: close\r\n" in head
    await until(lambda: not world.counts.open)
    looks_like_requests = f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 100_000
    await wire.send(looks_like_requests[: len(LONG) - HALF])
    assert await wire.rest() == b"no"


async def test_bytes_of_long_bodies_are_counted(world: World) -> None:
    prefix = await world.sandbox(Recorder(RESPONSE + LONG))
    await world.ask(put(prefix, "Connection: close") + LONG)
    assert len(LONG) < world.counts.from_callers < len(LONG) + 1000
    assert len(LONG) < world.counts.from_sandboxes < len(LONG) + 1000
