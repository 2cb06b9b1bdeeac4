"""Limits: the number of connections, silence, and the time to end; and what counts as a use."""

from __future__ import annotations

import asyncio
import contextlib
import resource

import pytest

from sandboxes.gateway import limits
from tests.gateway.conftest import MakeWorld
from tests.gateway.world import PATIENCE, Recorder, Wire, World, detail, headers_of, until


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await reader.read()


async def _open(world: World, prefix: str) -> Wire:
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    return wire


async def test_a_sandbox_has_at_most_the_configured_number_of_connections(make_world: MakeWorld) -> None:
    world = await make_world(max_connections=2)
    prefix = await world.sandbox(_silent)
    other = await world.sandbox(Recorder(), "other", uid="u2")
    wires = [await _open(world, prefix) for _ in range(2)]
    status, answer = await world.get(f"{prefix}/")
    assert (status, headers_of(answer, "Retry-After")) == (429, [b"1"])
    assert detail(answer) == "The sandbox has 2 connections, as many as it may have"
    assert (await world.get(f"{other}/"))[0] == 200
    wires[0].close()
    await until(lambda: world.counts.open == 1)
    await _open(world, prefix)


async def test_the_gateway_has_at_most_the_configured_number_of_connections(make_world: MakeWorld) -> None:
    world = await make_world(most=2)
    busy = await world.sandbox(_silent, "busy", uid="u2")
    prefix = await world.sandbox(Recorder())
    wires = [await _open(world, busy) for _ in range(2)]
    status, answer = await world.get(f"{prefix}/")
    assert (status, headers_of(answer, "Retry-After")) == (503, [b"1"])
    assert detail(answer) == "The gateway has as many connections as it may have"
    wires[0].close()
    await until(lambda: world.gateway.limit.open == 1)
    assert (await world.get(f"{prefix}/"))[0] == 200


async def test_far_too_many_connections_are_cut(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SURPLUS", 1)
    world = await make_world(most=1)
    await _open(world, await world.sandbox(_silent))
    wires = [await world.connect() for _ in range(2)]
    assert await wires[1].is_cut()


def test_the_bound_leaves_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 384), (100, 16), (10**9, 100_000), (resource.RLIM_INFINITY, 100_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert limits.most_clients() == most


@pytest.mark.parametrize("has_begun", [False, True])
async def test_silence_ends_a_connection(make_world: MakeWorld, has_begun: bool) -> None:
    world = await make_world(silence=1)
    is_over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if has_begun:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        is_over.set()

    prefix = await world.sandbox(silent)
    if has_begun:
        assert await (await _open(world, prefix)).is_cut()
    else:
        status, answer = await world.get(f"{prefix}/")
        assert (status, detail(answer)) == (504, "No byte in either direction for 1 s")
    await asyncio.wait_for(is_over.wait(), PATIENCE)
    assert world.counts.failures["silence"] == 1


@pytest.mark.parametrize("side", ["caller", "sandbox"])
async def test_bytes_in_either_direction_are_no_silence(make_world: MakeWorld, side: str) -> None:
    """The connection lasts for three times the silence that would end it, a look at a time."""
    world = await make_world(silence=1)
    looks = asyncio.Semaphore(0)

    async def talking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
        if side == "sandbox":
            for _ in range(30):
                writer.write(b".")
                await asyncio.wait([asyncio.ensure_future(looks.acquire())], timeout=0.1)
        else:
            await reader.readexactly(30)
            writer.write(b"." * 30)
        await reader.read()

    prefix = await world.sandbox(talking)
    wire = await world.connect()
    length = "Content-Length: 30\r\n" if side == "caller" else ""
    await wire.send(f"POST {prefix}/ HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode())
    await wire.head()
    if side == "caller":
        for _ in range(30):
            await wire.send(b".")
            await asyncio.wait([asyncio.ensure_future(looks.acquire())], timeout=0.1)
    assert await wire.exactly(30) == b"." * 30


async def test_a_request_is_a_use(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    await world.get(f"{prefix}/")
    await world.get("/s/abc/wrong/")
    assert world.pods.uses == {"abc": 1}


@pytest.mark.deadlines(gateway_use=0.2, gateway_tick=0.05)
async def test_a_stream_is_used_as_long_as_bytes_flow(world: World) -> None:
    flows = asyncio.Event()
    flows.set()

    async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            await flows.wait()
            writer.write(b": ping\n\n")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.02)

    prefix = await world.sandbox(streaming)
    await _open(world, prefix)
    await until(lambda: world.pods.uses["abc"] >= 4)
    flows.clear()
    await asyncio.sleep(0.3)  # a last byte, and the look that sees it
    used = world.pods.uses["abc"]
    await asyncio.sleep(0.5)  # many looks
    assert world.pods.uses["abc"] == used


async def test_requests_are_counted_by_status_and_failures_by_kind(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    await world.get(f"{prefix}/")
    await world.get("/s/abc/wrong/")
    await until(lambda: not world.counts.open)
    assert world.counts.statuses == {("http", 200): 1, ("http", 404): 1}
    assert world.counts.failures == {"not-found": 1}
    assert world.counts.dials == 1


async def test_at_its_end_requests_finish_and_streams_are_cut(make_world: MakeWorld) -> None:
    world = await make_world()
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    prefix = await world.sandbox(slow)
    asking = asyncio.create_task(world.get(f"{prefix}/"))
    await until(lambda: world.counts.open)
    closing = asyncio.create_task(world.gateway.close())
    await until(lambda: not world.gateway.is_listening)
    gate.set()
    assert (await asking)[0] == 200
    await asyncio.wait_for(closing, PATIENCE)


@pytest.mark.deadlines(gateway_finish=0.1, gateway_close=0.1)
async def test_at_its_end_what_takes_too_long_is_cut(make_world: MakeWorld) -> None:
    world = await make_world()
    wire = await _open(world, await world.sandbox(_silent))
    await asyncio.wait_for(world.gateway.close(), PATIENCE)
    assert await wire.is_cut()
