"""Bodies go through as they come, in both directions, and no side can hold the other's memory."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.world import PATIENCE, Recorder, World, body, detail, headers_of, until

# More than the buffers of the gateway and of the sockets on its way can take.
MUCH = 64 * 2**20
# More than the gateway may hold for a caller: what asyncio reads at once and writes late.
HELD = 2**20
CHUNK = bytes(256 * 1024)


async def test_a_body_with_a_length_arrives_with_it(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.ask(
        f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello".encode()
    )
    assert (sandbox.values("Content-Length"), sandbox.bodies) == ([b"5"], [b"hello"])
    assert sandbox.values("Transfer-Encoding") == []


async def test_an_empty_body_with_a_length_arrives_as_such(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/", "Content-Length: 0\r\n", method="POST")
    assert (sandbox.values("Content-Length"), sandbox.values("Transfer-Encoding")) == ([b"0"], [])


@pytest.mark.parametrize("parts", [[b"5\r\nhello\r\n0\r\n\r\n"], [b"5\r\nhel", b"lo\r\n", b"0\r\nX-T: 1\r\n\r\n"]])
async def test_a_body_in_chunks_arrives_in_chunks_without_trailers(world: World, parts: list[bytes]) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for part in parts:
        await until(lambda: world.counts.open)
        await wire.send(part)
    assert (await wire.head()).startswith(b"HTTP/1.1 200")
    assert sandbox.values("Transfer-Encoding") == [b"chunked"]
    (got,) = sandbox.bodies
    lines = got.split(b"\r\n")
    assert b"".join(lines[1:-3:2]) == b"hello"
    assert got.endswith(b"\r\n0\r\n\r\n")


async def test_an_upload_arrives_while_it_is_sent(world: World) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(2):
            arrived.put_nowait(await reader.readexactly(5))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    prefix = await world.sandbox(reading)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n".encode())
    for part in (b"first", b"other"):
        await wire.send(part)
        assert await asyncio.wait_for(arrived.get(), PATIENCE) == part
    await wire.head()
    assert await wire.exactly(2) == b"ok"


async def test_both_directions_stream_at_once(world: World) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(2):
            writer.write(await reader.readexactly(5))
        await reader.read()

    prefix = await world.sandbox(echo)
    wire = await world.connect()
    await wire.send(f"POST {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n".encode())
    await wire.head()
    for part in (b"first", b"other"):
        await wire.send(part)
        assert await wire.exactly(5) == part


async def test_a_caller_that_reads_nothing_holds_the_sandbox_back(world: World) -> None:
    sent = 0
    is_blocked = asyncio.Event()

    async def writing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n".encode())
        while sent < MUCH:
            writer.write(CHUNK)
            sent += len(CHUNK)
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                is_blocked.set()
                await writer.drain()

    prefix = await world.sandbox(writing)
    wire = await world.connect()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await asyncio.wait_for(is_blocked.wait(), PATIENCE)
    (client,) = world.gateway.clients
    assert client.transport is not None
    assert client.transport.get_write_buffer_size() < HELD
    assert sent < MUCH
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await wire.head()
    assert len(await wire.rest()) == MUCH


async def test_a_sandbox_that_reads_nothing_holds_the_caller_back(world: World) -> None:
    gate = asyncio.Event()
    got = 0

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        while got < MUCH:
            got += len(await reader.read(2**20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    prefix = await world.sandbox(reading)
    wire = await world.connect()
    wire.writer.write(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n".encode())
    sent = 0
    while sent < MUCH:
        wire.writer.write(CHUNK)
        sent += len(CHUNK)
        try:
            await asyncio.wait_for(wire.writer.drain(), 1)
        except TimeoutError:
            gate.set()
            await wire.writer.drain()
    assert gate.is_set(), "the gateway took the whole body while the sandbox read none of it"
    await wire.head()
    assert got == MUCH


async def test_the_caller_gets_a_100_only_when_the_sandbox_sends_it(world: World) -> None:
    gate = asyncio.Event()
    heads: list[bytes] = []

    async def willing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await gate.wait()
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n")
        assert await reader.readexactly(2) == b"hi"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    prefix = await world.sandbox(willing)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
    await until(lambda: heads)
    assert b"Expect: 100-continue" in heads[0]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.reader.read(1), 0.05)
    gate.set()
    assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"hi")
    assert (await wire.head()).startswith(b"HTTP/1.1 200 OK")


async def test_the_caller_gets_a_refusal_instead_of_a_100(world: World) -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    prefix = await world.sandbox(refusing)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
    head = await wire.head()
    assert head.startswith(b"HTTP/1.1 417")
    assert headers_of(head, "Connection") == [b"close"]


async def test_other_1xx_are_dropped(world: World) -> None:
    prefix = await world.sandbox(
        Recorder(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
    )
    _, answer = await world.get(f"{prefix}/")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("framing", [f"Content-Length: {MUCH}", "Transfer-Encoding: chunked"])
async def test_a_response_before_the_end_of_an_upload_reaches_the_caller(world: World, framing: str) -> None:
    """The sandbox refuses the body and closes at once, which resets its connection."""

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")

    prefix = await world.sandbox(refusing)
    wire = await world.connect()
    wire.writer.write(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())

    async def send() -> None:
        try:
            while True:
                wire.writer.write(CHUNK if "Length" in framing else b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
                await wire.writer.drain()
        except ConnectionError:
            return

    sending = asyncio.create_task(send())
    try:
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 413")
        assert await wire.exactly(7) == b"too big"
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_body_that_is_no_http_is_400_and_never_looks_whole(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    answer = await world.ask(
        f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nnonsense\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert detail(
        answer.partition(b"HTTP/1.1 400 Bad Request\r\n")[1] + answer.partition(b"HTTP/1.1 400 Bad Request\r\n")[2]
    )
    assert sandbox.bodies == []


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_caller_that_leaves_in_an_upload_ends_the_sandboxes_connection(world: World, framing: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    await wire.send(f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n2\r\nhi\r\n".encode())
    await until(lambda: sandbox.heads)
    wire.close()
    await asyncio.wait_for(sandbox.ended.wait(), PATIENCE)
    assert sandbox.bodies == []


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_caller_that_leaves_ends_the_sandboxes_connection(world: World, has_begun: bool) -> None:
    has_request, is_over = asyncio.Event(), asyncio.Event()

    async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if has_begun:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        has_request.set()
        try:
            await reader.read()
        finally:
            is_over.set()

    prefix = await world.sandbox(streaming)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    if has_begun:
        await wire.head()
    await asyncio.wait_for(has_request.wait(), PATIENCE)
    wire.close()
    await asyncio.wait_for(is_over.wait(), PATIENCE)
    await until(lambda: not world.counts.open)
    assert world.counts.statuses == {("http", 200 if has_begun else 0): 1}


async def test_bytes_of_both_directions_are_counted(world: World) -> None:
    prefix = await world.sandbox(Recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)))
    request = f"PUT {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50000\r\n\r\n"
    assert len(body(await world.ask(request.encode() + bytes(50_000)))) == 100_000
    assert 50_000 <= world.counts.from_callers < 51_000
    assert 100_000 <= world.counts.from_sandboxes < 101_000
