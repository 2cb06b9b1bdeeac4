"""WebSockets whose frames are tiny and many: others are served meanwhile, and no frame is lost."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.gateway.frames import MOST_FRAMES, Frames
from sandboxes.gateway.websocket import _Flow
from tests.gateway.test_websocket_frames import HANDSHAKE
from tests.gateway.world import PATIENCE, World, until

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
PING, MASKED = b"\x89\x00", b"\x89\x80mask"
LAST, LAST_MASKED = b"\x81\x03end", b"\x81\x83maskend"
MANY = 50_000


@pytest.mark.parametrize("cut", [0, 1])
def test_a_call_passes_on_a_bounded_number_of_frames(cut: int) -> None:
    data = PING * (2 * MOST_FRAMES + 5)
    frames = Frames(100)
    passed, rest, is_too_big = frames.pass_on(data[: len(data) - cut])
    assert (passed, is_too_big) == (PING * MOST_FRAMES, False)
    again, more, _ = frames.pass_on(rest)
    assert (again, more) == (PING * MOST_FRAMES, PING * 4 + PING[: 2 - cut])
    assert frames.pass_on(more)[0] == PING * (5 - cut)
    assert frames.held == (PING[:1] if cut else b"")


async def test_frames_that_are_too_many_wait_while_other_work_is_done() -> None:
    sent: list[bytes] = []
    behind: list[bool] = []
    flow = _Flow(100, sent.append, lambda: None, lambda: behind.append(flow.is_behind))
    flow.feed_data(PING * 3 * MOST_FRAMES)
    assert (sent, behind) == ([PING * MOST_FRAMES], [True])
    flow.feed_data(LAST)  # what has come before reading has stopped
    await asyncio.sleep(0)
    assert sent == [PING * MOST_FRAMES] * 2
    await until(lambda: not flow.is_behind)
    assert b"".join(sent) == PING * 3 * MOST_FRAMES + LAST
    assert behind[-1] is False


@pytest.mark.parametrize("closes", [False, True])
async def test_a_flood_of_tiny_frames_of_a_sandbox_arrives_whole(world: World, closes: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + PING * MANY + LAST)
        await writer.drain()
        if not closes:
            await reader.read()

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    assert await wire.exactly(2 * MANY + len(LAST)) == PING * MANY + LAST


async def test_a_flood_of_tiny_frames_of_a_caller_arrives_whole(world: World) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        received.set_result(await reader.readexactly(6 * MANY + len(LAST_MASKED)))

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    await wire.send(MASKED * MANY + LAST_MASKED)
    assert await asyncio.wait_for(received, PATIENCE) == MASKED * MANY + LAST_MASKED
