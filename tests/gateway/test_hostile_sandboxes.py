"""What a hostile sandbox can say to its callers, to their browsers, and to proxies in front of the gateway."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from sandboxes.gateway.upstream import Address, Upstream
from tests.gateway.conftest import MakeWorld
from tests.gateway.test_hostile_bounds import Flood
from tests.gateway.test_websocket_frames import HANDSHAKE
from tests.gateway.world import PATIENCE, FewKeys, Recorder, World, detail, headers_of, ready_pod, until

OWN = "abc.gw.example"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection : x\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_what_a_proxy_could_read_in_another_way_is_502(world: World, response: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)

    prefix = await world.sandbox(serve)
    status, answer = await world.get(f"{prefix}/")
    assert (status, detail(answer)) == (502, "The sandbox's response is not valid HTTP")


@pytest.mark.parametrize("header", ["NEL", "Report-To"])
async def test_a_sandbox_is_told_no_other_sandboxes_urls_by_browsers(world: World, header: str) -> None:
    prefix = await world.sandbox(Recorder(f"HTTP/1.1 200 OK\r\n{header}: {{}}\r\nContent-Length: 0\r\n\r\n".encode()))
    _, answer = await world.get(f"{prefix}/")
    assert headers_of(answer, header) == []


@pytest.mark.parametrize(
    "cookie", ["=sandbox-gateway=x", " = sandbox-gateway=x", "=sandbox-gateway", "\tsandbox-gateway\t=x; Path=/"]
)
async def test_a_sandbox_can_not_set_the_gateways_cookie_by_a_cookie_without_a_name(
    make_world: MakeWorld, cookie: str
) -> None:
    world = await make_world(url="http://{sandbox_id}.gw.example")
    prefix = await world.sandbox(
        Recorder(f"HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 0\r\n\r\n".encode())
    )
    _, answer = await world.get(f"{prefix}/", host=OWN)
    token = prefix.rpartition("/")[2]
    assert headers_of(answer, "Set-Cookie") == [f"sandbox-gateway={token}; Path=/; HttpOnly; SameSite=Lax".encode()]


async def test_a_cookie_that_another_sandboxes_page_has_set_locks_no_caller_out(make_world: MakeWorld) -> None:
    world = await make_world(url="http://{sandbox_id}.gw.example")
    sandbox = Recorder()
    token = (await world.sandbox(sandbox)).rpartition("/")[2]
    theirs = (await world.sandbox(Recorder(), "other", uid="u2")).rpartition("/")[2]
    cookies = f"Cookie: sandbox-gateway=x; sandbox-gateway={theirs}; a=b; sandbox-gateway={token}\r\n"
    assert (await world.get("/", cookies, host=OWN))[0] == 200
    assert sandbox.values("Cookie") == [b"a=b"]


@pytest.mark.parametrize(
    "referer",
    [
        "{other}/page",
        "http://elsewhere{other}/page",
        "https://elsewhere/login?next={other}/page",
        "//gw{other}",
    ],
)
async def test_a_referer_never_tells_a_sandbox_anothers_token(world: World, referer: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    other = await world.sandbox(Recorder(), "other", uid="u2")
    await world.get(f"{prefix}/", f"Referer: {referer.format(other=other)}\r\n")
    assert other.rpartition("/")[2].encode() not in sandbox.head


async def test_what_is_no_address_is_not_dialled(make_world: MakeWorld) -> None:
    world = await make_world(wait=0)
    candidate = world.pods.put("abc", ready_pod("a.b"), 80)
    assert (await world.get(f"{world.prefix(candidate)}/"))[0] == 503
    assert world.pods.dials == []


@pytest.mark.deadlines(gateway_tick=3600.0, gateway_keys=0.05)
@pytest.mark.parametrize("upgrade", ["", HANDSHAKE])
async def test_what_is_open_ends_when_its_key_goes_and_no_pod_changes(world: World, upgrade: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            if upgrade
            else b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
        )
        await reader.read()

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n".encode())
    await wire.head()
    assert isinstance(world.keys, FewKeys)
    world.keys.keys = [b"n" * 32]
    await until(lambda: not world.counts.open)
    assert await wire.is_cut() != bool(upgrade)


@pytest.mark.deadlines(gateway_close=3)
async def test_a_message_too_long_does_not_lift_the_bound_of_the_other_direction(make_world: MakeWorld) -> None:
    world = await make_world(max_message=1024)
    flood = Flood()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        # A control frame may have any length here: receivers refuse it by its header.
        writer.write(b"\x89\x7f" + struct.pack("!Q", 2**40))
        await flood.run(writer, bytes(2**16))

    prefix = await world.sandbox(serve)
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n".encode())
    await wire.head()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (client,) = world.gateway.clients
    await until(lambda: client.writing_paused)
    await wire.send(b"\x82\xff" + struct.pack("!Q", 2**20) + b"mask")
    await asyncio.wait_for(flood.ended.wait(), PATIENCE)
    assert flood.is_held_back


@pytest.mark.deadlines(gateway_stuck=0.2)
async def test_a_caller_that_does_not_take_the_end_of_its_last_response_is_cut(make_world: MakeWorld) -> None:
    world = await make_world()
    size = 8 * 2**20
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    prefix = await world.sandbox(Recorder(response))
    loop = asyncio.get_running_loop()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        await loop.sock_connect(caller, ("127.0.0.1", world.port))
        await loop.sock_sendall(caller, f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        await until(lambda: world.counts.open)
        while world.counts.open:
            await loop.sock_recv(caller, 2**14)
        await until(lambda: not world.gateway.limit.open)


BODILESS = [
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5"),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"),
    ("HEAD", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b"),
    ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked"),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5"),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5"),
]
# It has the end of a head in it.
BODY = b"5\r\n\r\n\r\nx\r\n0\r\n\r\n"


@pytest.mark.parametrize(("method", "head"), BODILESS)
async def test_a_body_where_none_may_be_is_dropped(world: World, method: str, head: str) -> None:
    """Even in one segment with the head, as aiohttp's own server answers HEAD by chunks."""
    sandbox = Recorder(f"{head}\r\n\r\n".encode() + BODY)
    prefix = await world.sandbox(sandbox)
    wire = await world.connect()
    for number in (1, 2):
        await wire.send(f"{method} {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        answer = await wire.head()
        assert answer.split()[1] == head.rpartition("HTTP/1.1 ")[2][:3].encode()
        assert sandbox.connections == number


@pytest.mark.parametrize("cut", range(1, 25))
@pytest.mark.parametrize(("method", "head"), BODILESS)
async def test_a_body_where_none_may_be_is_dropped_however_it_is_cut(method: str, head: str, cut: int) -> None:
    response = f"{head}\r\n\r\n".encode() + BODY
    with socket.socket() as unused:
        upstream = Upstream(asyncio.get_running_loop(), Address("abc", "u", "127.0.0.1", 1), unused)
        upstream.expect_response(has_body=method != "HEAD")
        upstream.data_received(response[:-cut])
        upstream.data_received(response[-cut:])
        code = 100
        while code == 100:
            message, content = await asyncio.wait_for(upstream.read(), PATIENCE)
            code = message.code
        assert code == int(head.rpartition("HTTP/1.1 ")[2][:3])
        assert content.is_eof()
        assert upstream.should_close
