"""A key that is taken away ends what its tokens have opened when the gateway reads the keys, and not later."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.world import Recorder, World, ready_pod, until


async def _streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await reader.read()


@pytest.mark.deadlines(gateway_tick=3600.0, gateway_keys=3600.0)
@pytest.mark.parametrize("path", ["{old}/", f"/s/unknown/{'A' * 32}/"])
async def test_any_request_that_reads_other_keys_ends_what_they_do_not_permit(world: World, path: str) -> None:
    prefix = await world.sandbox(_streaming)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    world.keys.keys = [b"n" * 32]
    assert (await world.get(path.format(old=prefix)))[0] == 404
    assert await wire.is_cut()
    await until(lambda: not world.counts.open)


@pytest.mark.deadlines(gateway_keys=0.01)
async def test_a_new_key_before_the_old_one_ends_nothing(world: World) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await gate.wait()
        writer.write(b"ok")

    prefix = await world.sandbox(slow)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    world.keys.keys = [b"n" * 32, *world.keys.keys]
    other = world.pods.put("other", ready_pod("127.0.0.1"), await world.serve(Recorder()), uid="u2")
    assert (await world.get(f"{world.prefix(other)}/"))[0] == 200
    gate.set()
    assert await wire.exactly(2) == b"ok"
