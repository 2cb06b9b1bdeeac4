"""The bytes of WebSockets on both sides of the gateway: whatever frames they are, they arrive as they were sent."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

from sandboxes.gateway.frames import Frames, close_frame
from tests.gateway.conftest import MakeWorld
from tests.gateway.world import PATIENCE, Recorder, World, body, until

HANDSHAKE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n"
)


async def _raw(world: World, serve: Callable[..., Awaitable[None]]) -> tuple[str, list[bytes]]:
    """Start a raw WebSocket server; return its prefix, and the list of what it gets."""
    got: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: jGLfMlOKSmGBTMwWMlRCoyvKPbk=\r\nX-A: 1\r\n\r\n"
        )
        await serve(reader, writer, got)

    return await world.sandbox(accept), got


async def _keep(reader: asyncio.StreamReader, _: asyncio.StreamWriter, got: list[bytes]) -> None:
    while data := await reader.read(2**16):
        got.append(data)


async def test_a_close_without_a_code_stays_one_without(world: World) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: list[bytes]) -> None:
        writer.write(b"\x88\x00")
        await reader.read()

    prefix, _ = await _raw(world, close)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    assert await wire.exactly(2) == b"\x88\x00"


async def test_a_sandbox_that_dies_is_1006_to_the_caller(world: World) -> None:
    async def die(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: list[bytes]) -> None:
        writer.write(b"\x81\x02hi")

    prefix, _ = await _raw(world, die)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    assert await wire.rest() == b"\x81\x02hi"  # and no close frame


async def test_fragments_and_all_other_frames_arrive_as_they_were_sent(world: World) -> None:
    prefix, got = await _raw(world, _keep)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    frames = [
        b"\x01\x82\x01\x02\x03\x04ab", b"\x89\x80\x01\x02\x03\x04", b"\x80\x82\x01\x02\x03\x04cd",
        b"\x82\xfe\x00\x80\x01\x02\x03\x04" + b"z" * 128,
        b"\x82\xff" + struct.pack("!Q", 70_000) + b"\x01\x02\x03\x04" + b"y" * 70_000,
        b"\x00\x00", b"\xc1\x00",  # unmasked, compressed: for the sandbox to judge
    ]  # fmt: skip
    for byte in b"".join(frames[:4]):
        await wire.send(bytes((byte,)))
    await wire.send(b"".join(frames[4:]))
    await until(lambda: len(b"".join(got)) == len(b"".join(frames)))
    assert b"".join(got) == b"".join(frames)


async def test_what_a_caller_sends_with_its_handshake_arrives(world: World) -> None:
    prefix, got = await _raw(world, _keep)
    wire = await world.connect()
    frame = b"\x81\x82\x01\x02\x03\x04ab"
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode() + frame)
    await wire.head()
    await until(lambda: b"".join(got) == frame)


async def test_fragments_of_a_message_count_together(make_world: MakeWorld) -> None:
    world = await make_world(max_message=1024)
    prefix, got = await _raw(world, _keep)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    part = bytes(1000)
    await wire.send(b"\x82\xfe\x03\xe8mask" + part)
    await wire.send(b"\x02\xfe\x03\xe8mask" + part + b"\x89\xfd"[:1] + b"\x80mask" + b"\x80\xfe\x03\xe8mask" + part)
    frame = await wire.exactly(4)
    assert (frame[0], struct.unpack("!H", frame[2:])) == (0x88, (1009,))
    await until(lambda: b"".join(got).count(part) == 2 and b"".join(got)[-100:].find(b"\x88") >= 0)


async def test_a_message_of_any_length_is_never_held(world: World) -> None:
    """Its first bytes are there before its last ones are sent."""
    prefix, got = await _raw(world, _keep)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    size = 32 * 2**20
    await wire.send(b"\x82\xff" + struct.pack("!Q", size) + b"mask" + b"begin")
    await until(lambda: b"".join(got).endswith(b"begin"))


async def test_a_caller_that_reads_nothing_holds_the_sandboxes_socket_back(world: World) -> None:
    is_blocked, sent = asyncio.Event(), 0

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: list[bytes]) -> None:
        nonlocal sent
        frame = b"\x82\x7f" + struct.pack("!Q", 2**18) + bytes(2**18)
        while not is_blocked.is_set():
            writer.write(frame)
            sent += 1
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                is_blocked.set()

    prefix, _ = await _raw(world, flood)
    wire = await world.connect()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await asyncio.wait_for(is_blocked.wait(), PATIENCE)
    (client,) = world.gateway.clients
    assert client.transport is not None
    assert client.transport.get_write_buffer_size() < 2**20
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await wire.head()
    assert len(await wire.rest()) == sent * (2**18 + 10)


async def test_a_handshake_that_the_sandbox_refuses_is_answered_as_it_does(world: World) -> None:
    refusal = b"HTTP/1.1 403 No Way\r\nX-Why: because\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\nnope"
    prefix = await world.sandbox(Recorder(refusal))
    status, answer = await world.get(f"{prefix}/", HANDSHAKE)
    assert answer.startswith(b"HTTP/1.1 403 No Way\r\nX-Why: because\r\n")
    assert (status, body(answer)) == (403, b"nope")
    assert f"Path={prefix}".encode() in answer


async def test_a_handshake_without_a_token_is_404(world: World) -> None:
    await world.sandbox(Recorder())
    assert (await world.get(f"/s/abc/{'A' * 32}/", HANDSHAKE))[0] == 404


async def test_the_end_of_a_sandbox_in_a_message_cuts_the_socket(world: World) -> None:
    """A close frame would be taken for the rest of the message."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: list[bytes]) -> None:
        writer.write(b"\x82\x7e\x10\x00half")
        await reader.read()

    prefix, _ = await _raw(world, half)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    assert await wire.exactly(8) == b"\x82\x7e\x10\x00half"
    world.pods.remove("abc")
    assert await wire.rest() == b""


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_frames_are_followed_however_they_are_cut(step: int) -> None:
    data = b"".join(
        [
            b"\x81\x05hello",
            b"\x89\x00",
            b"\x02\x7e\x01\x00" + bytes(256),
            b"\x80\x02ab",
            close_frame(1000, "bye", masked=True),
        ]
    )
    frames = Frames(258)
    passed = b""
    for at in range(0, len(data), step):
        part, rest, is_too_big = frames.pass_on(data[at : at + step])
        passed += part
        assert (rest, is_too_big) == (b"", False)
    assert passed == data
    assert frames.is_between
    frames = Frames(257)
    sent = [frames.pass_on(data[at : at + step]) for at in range(0, len(data), step)]
    assert any(is_too_big for _, _, is_too_big in sent)
