"""What a hostile caller or sandbox can make the gateway hold: little, whatever it sends and however little it reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tests.gateway.world import PATIENCE, Recorder, Wire, World, detail, until

# Sockets' own buffers take some megabytes; what has no bound takes more than this within the time of a test.
MUCH = 24 * 2**20


class Flood:
    """Sends the same bytes until they are taken no more, or `most` of them are sent."""

    def __init__(self, most: int = MUCH) -> None:
        self.most = most
        self.sent = 0
        self.ended = asyncio.Event()

    async def run(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        try:
            while self.sent < self.most:
                writer.write(data)
                self.sent += len(data)
                async with asyncio.timeout(1):
                    await writer.drain()
        except TimeoutError:
            pass
        self.ended.set()

    @property
    def is_held_back(self) -> bool:
        return self.sent < self.most


async def _unread(world: World) -> Wire:
    """Return a caller that reads nothing, and whose buffers are soon full."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", world.port))
    wire = Wire(*await asyncio.open_connection(sock=one))
    world.callback(wire.abort)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return wire


async def test_responses_that_were_not_asked_for_hold_the_sandbox_back(world: World) -> None:
    flood = Flood()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        flood.sent = 0
        # At one of the requests, the caller takes no more, and this response is complete.
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2**15) + bytes(2**15))
        await flood.run(writer, b"HTTP/1.1 200 OK\r\nX-A: %s\r\nContent-Length: 0\r\n\r\n" % (b"a" * 8000))

    prefix = await world.sandbox(serve)
    wire = await _unread(world)
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 500)
    (client,) = world.gateway.clients
    await until(lambda: client.writing_paused)
    await asyncio.wait_for(flood.ended.wait(), PATIENCE)
    assert client.writing_paused
    assert flood.is_held_back


async def test_a_caller_that_reads_none_of_its_responses_is_held_back(world: World) -> None:
    prefix = await world.sandbox(Recorder(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 5000 + b"\r\nContent-Length: 2\r\n\r\n"))
    wire = await _unread(world)
    (client,) = world.gateway.clients
    flood = Flood()
    await flood.run(wire.writer, f"HEAD {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 1000)
    assert flood.is_held_back
    assert client.transport is not None
    assert client.transport.get_write_buffer_size() < 2**18


async def test_a_caller_that_reads_none_of_its_refusals_is_cut(world: World) -> None:
    wire = await _unread(world)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while True:
                await wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    await until(lambda: not world.gateway.limit.open)


async def test_a_head_is_bounded_as_a_whole(world: World) -> None:
    wire = await world.connect()
    await wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n")
    line = b": " + b"a" * 60_000 + b"\r\n"
    with pytest.raises(ConnectionError):  # noqa: PT012 - whichever line it is
        for number in range(200):
            await wire.send(b"X-A%d" % number + line)
            await asyncio.sleep(0)
    await until(lambda: not world.gateway.limit.open)


async def test_a_head_that_is_too_long_as_a_whole_is_400(world: World) -> None:
    wire = await world.connect()
    await wire.send(
        b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 60_000) for n in range(5))
    )
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert detail(answer) == "The head of the request is too long"


async def test_the_head_of_a_response_is_bounded_as_a_whole(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            writer.write(b"X-%d: %s\r\n" % (number, b"a" * 60_000))
            await writer.drain()
        writer.write(b"Content-Length: 0\r\n\r\n")

    prefix = await world.sandbox(serve)
    status, answer = await world.get(f"{prefix}/")
    assert (status, detail(answer)) == (502, "The sandbox's response is not valid HTTP")


async def test_1xx_without_an_end_are_no_response(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await writer.drain()

    prefix = await world.sandbox(serve)
    assert (await world.get(f"{prefix}/"))[0] == 502


async def test_an_upload_is_not_taken_for_a_head(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    size = 3 * 2**20
    refused = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    wire = await world.connect()
    await wire.send(refused)
    assert (await wire.rest()).startswith(b"HTTP/1.1 404 ")
    wire = await world.connect()
    for _ in range(2):
        await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size))
        assert (await wire.head()).startswith(b"HTTP/1.1 200 ")
        await wire.exactly(2)
    assert [len(one) for one in sandbox.bodies] == [size, size]


async def test_trailers_of_a_response_are_bounded_as_a_whole(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
        for number in range(200):
            writer.write(b"X-%d: %s\r\n" % (number, b"a" * 60_000))
            await writer.drain()
        writer.write(b"\r\n")
        await reader.read()

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    assert await wire.is_cut()


async def test_trailers_of_a_request_are_bounded_as_a_whole(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".encode())
    with pytest.raises(ConnectionError):  # noqa: PT012 - whichever line it is
        for number in range(200):
            await wire.send(b"X-%d: %s\r\n" % (number, b"a" * 60_000))
            await asyncio.sleep(0)
    await until(lambda: not world.counts.open)
