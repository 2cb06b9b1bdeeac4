"""Requests that no ordinary client sends."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import MakeWorld
from tests.gateway.test_websocket_frames import HANDSHAKE
from tests.gateway.world import Recorder, World, detail, ready_pod, until


@pytest.mark.parametrize(
    ("header", "sent", "arrives"),
    [
        ("Content-Length: 3", b"abc", b"abc"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_a_handshake_with_a_body_is_a_plain_request(
    world: World, header: str, sent: bytes, arrives: bytes
) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    answer = await world.ask(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}{header}\r\n\r\n".encode() + sent)
    assert answer.endswith(b"\r\n\r\nok")
    assert sandbox.bodies == [arrives]
    assert b"Upgrade" not in sandbox.head


@pytest.mark.parametrize(
    "target",
    [
        "/s/%61bc/{token}/",
        "/%73/abc/{token}/",
        "/S/abc/{token}/",
        "/./s/abc/{token}/",
        "/x/../s/abc/{token}/",
        "//s/abc/{token}/",
        "/s//abc/{token}/",
        "/s/abc;x/{token}/",
        "/s/abc/{token};x/",
        "/s/abc/{token}%2F",
        "/s/abc%2F{token}/",
        "/s/abc/{token}=",
        "/s/abc/.{token}",
        "/s/abc/..{token}/",
        "/s/abc/0..{token}/",
        "/s/abc/65536..{token}/",
        "/s/abc/" + "9" * 5000 + "..{token}/",
        "/s/abc/.99999999999.{token}/",
        "/s/abc/" + "A" * 32 + "/",
        "http://gw?{path}",
        "ftp://gw{path}",
    ],
)
async def test_a_token_has_one_form_and_one_place(world: World, target: str) -> None:
    sandbox = Recorder()
    path = await world.sandbox(sandbox)
    status, answer = await world.get(target.format(token=path.rpartition("/")[2], path=path))
    assert (status, detail(answer)) == (404, "No sandbox has this URL")
    assert sandbox.heads == []


async def test_a_sandbox_does_not_use_up_the_connections_of_its_namesake_in_another_cluster(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_connections=1)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await reader.read()

    hostile = world.pods.put("abc", ready_pod("127.0.0.1"), await world.serve(silent), cluster="one")
    other = world.pods.put("abc", ready_pod("127.0.0.1"), await world.serve(Recorder()), uid="u2", cluster="two")
    wire = await world.connect()
    await wire.send(f"GET {world.prefix(hostile)}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await until(lambda: world.counts.open)
    assert (await world.get(f"{world.prefix(hostile)}/"))[0] == 429
    assert (await world.get(f"{world.prefix(other)}/"))[0] == 200


async def test_whatever_a_caller_leaves_unfinished_nothing_of_it_stays(world: World) -> None:

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/refuse" in head:
            writer.transport.abort()
        elif b"/socket" in head:
            writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x09h")
        elif b"/stream" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nh")
        elif b"/whole" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n")
        await reader.read()

    prefix = await world.sandbox(serve)
    end = " HTTP/1.1\r\nHost: a\r\n"
    parts = [
        *(f"GET {prefix}/{path}{end}\r\n" for path in ("refuse", "stream", "whole", "silent")),
        f"GET {prefix}/socket{end}{HANDSHAKE}\r\n\x01\x05h",
        *(f"PUT {path}{end}Content-Length: 99999\r\n\r\nx" for path in (f"{prefix}/silent", "/x")),
        *(f"PUT {path}{end}Transfer-Encoding: chunked\r\n\r\n9\r\nx" for path in (f"{prefix}/stream", "/x")),
        f"PUT {prefix}/silent{end}Transfer-Encoding: chunked\r\n\r\nz",
        f"GET {prefix}/whole{end}\r\n" * 5,
        f"GET {prefix}/wh",
        "",
    ]
    tasks = len(asyncio.all_tasks())
    for number in range(10):
        for part in parts:
            wire = await world.connect()
            await wire.send(part.encode())
            for _ in range(number % 4):
                await asyncio.sleep(0)
            if number % 2:
                wire.abort()
            else:
                wire.close()
    await until(lambda: not world.gateway.limit.open and not world.counts.open)
    await until(lambda: not world.gateway.proxy.connections.idle)
    assert world.gateway.clients == []
    assert len(world.gateway.proxy.exchanges) == 0
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
