"""WebSockets: a real client and a real server, with the gateway between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from tests.gateway.conftest import MakeWorld
from tests.gateway.world import PATIENCE, World, ready_pod, until

Socket = aiohttp.ClientWebSocketResponse
Connect = Callable[..., Awaitable[Socket]]


class Server:
    """A sandbox with a WebSocket at `/ws` that sends back what it gets. `said`: what it has got."""

    def __init__(self) -> None:
        self.said: list[aiohttp.WSMessage] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.ended = asyncio.Event()
        self.close_codes: list[int | None] = []
        self.options: dict[str, Any] = {"max_msg_size": 0, "autoping": True}
        self.headers: list[Any] = []

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(**self.options)
        self.headers.append(request.headers)
        await ws.prepare(request)
        self.sockets.append(ws)
        try:
            async for message in ws:
                self.said.append(message)
                if message.type is WSMsgType.TEXT:
                    await ws.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await ws.send_bytes(message.data)
                elif message.type is WSMsgType.PING:
                    await ws.pong(message.data)
        finally:
            self.close_codes.append(ws.close_code)
            self.ended.set()
        return ws


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def connect_to(server: Server) -> AsyncIterator[Callable[[World], Awaitable[Connect]]]:
    """Return a function that puts the server behind a gateway and returns one that connects to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(world: World) -> Connect:
            app = web.Application()
            app.router.add_get("/ws", server.handle)
            running = await stack.enter_async_context(TestServer(app))
            world.pods.put("abc", ready_pod("127.0.0.1"), running.port or 0)
            prefix = world.prefix(world.pods.find("abc")[0])
            session = await stack.enter_async_context(aiohttp.ClientSession())

            async def connect(**options: Any) -> Socket:
                url = f"http://127.0.0.1:{world.port}{prefix}/ws"
                ws: Socket = await session.ws_connect(url, **{"max_msg_size": 0, **options})
                return ws

            return connect

        yield start


@pytest.fixture
async def connect(world: World, connect_to: Callable[[World], Awaitable[Connect]]) -> Connect:
    return await connect_to(world)


async def received(ws: Socket) -> aiohttp.WSMessage:
    return await asyncio.wait_for(ws.receive(), PATIENCE)


async def test_text_and_binary_messages_come_as_they_are(connect: Connect) -> None:
    ws = await connect()
    for text in ("", "ä\U0001f600", "x" * 70_000):
        await ws.send_str(text)
        message = await received(ws)
        assert (message.type, message.data) == (WSMsgType.TEXT, text)
    for data in (b"", b"\x00\xff", b"x" * 200):
        await ws.send_bytes(data)
        message = await received(ws)
        assert (message.type, message.data) == (WSMsgType.BINARY, data)
    await ws.close()


async def test_the_sandbox_sees_the_handshake_under_its_own_name(
    connect: Connect, world: World, server: Server
) -> None:
    ws = await connect(origin=f"http://127.0.0.1:{world.port}", headers={"X-API-Key": "k", "X-Mine": "1"})
    (headers,) = server.headers
    own = f"localhost:{world.pods.find('abc')[0].subject.port}"
    assert (headers["Host"], headers["Origin"], headers["X-Mine"]) == (own, f"http://{own}", "1")
    assert "X-API-Key" not in headers
    await ws.close()


async def test_the_sandbox_chooses_the_subprotocol(connect: Connect, server: Server) -> None:
    server.options["protocols"] = ("two", "three")
    ws = await connect(protocols=("one", "two"))
    assert ws.protocol == "two"
    await ws.close()


@pytest.mark.parametrize("compress", [0, 15])
async def test_compression_is_between_caller_and_sandbox(connect: Connect, compress: int) -> None:
    ws = await connect(compress=compress)
    assert ws.compress == compress
    await ws.send_str("abc" * 10_000)
    assert (await received(ws)).data == "abc" * 10_000
    await ws.close()


@pytest.mark.parametrize(("code", "reason"), [(1000, b""), (4001, "schlie\u00dfen".encode()), (1011, b"broken")])
async def test_a_close_of_the_caller_reaches_the_sandbox(
    connect: Connect, server: Server, code: int, reason: bytes
) -> None:
    server.options["autoclose"] = False
    ws = await connect()
    closing = asyncio.create_task(ws.close(code=code, message=reason))
    await asyncio.wait_for(server.ended.wait(), PATIENCE)
    await server.sockets[0].close()
    await closing
    assert server.close_codes == [code]


@pytest.mark.parametrize(("code", "reason"), [(1000, b""), (4001, "schlie\u00dfen".encode()), (1011, b"broken")])
async def test_a_close_of_the_sandbox_reaches_the_caller(
    connect: Connect, server: Server, code: int, reason: bytes
) -> None:
    ws = await connect()
    await until(lambda: server.sockets)
    closing = asyncio.create_task(server.sockets[0].close(code=code, message=reason))
    message = await received(ws)
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, code, reason.decode())
    await closing


async def test_a_caller_that_leaves_ends_the_sandboxes_socket(connect: Connect, server: Server, world: World) -> None:
    ws = await connect()
    await until(lambda: server.sockets)
    assert ws._response.connection is not None  # noqa: SLF001 - as if the process were killed
    assert ws._response.connection.transport is not None  # noqa: SLF001 - as if the process were killed
    ws._response.connection.transport.abort()  # noqa: SLF001 - as if the process were killed
    await asyncio.wait_for(server.ended.wait(), PATIENCE)
    assert server.close_codes[0] in {None, 1006}  # no close frame, for aiohttp's server
    await until(lambda: not world.counts.open)


async def test_pings_and_pongs_go_through_in_both_directions(connect: Connect, server: Server) -> None:
    server.options["autoping"] = False
    ws = await connect(autoping=False)
    await ws.ping(b"from the caller")
    message = await received(ws)
    assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"from the caller")
    assert server.said[0].type is WSMsgType.PING
    await server.sockets[0].ping(b"from the sandbox")
    message = await received(ws)
    assert (message.type, bytes(message.data)) == (WSMsgType.PING, b"from the sandbox")
    await ws.close()


@pytest.mark.parametrize("sender", ["caller", "sandbox"])
async def test_a_message_that_is_too_long_is_closed_with_1009(
    make_world: MakeWorld, connect_to: Callable[[World], Awaitable[Connect]], server: Server, sender: str
) -> None:
    world = await make_world(max_message=2**20)
    ws = await (await connect_to(world))()
    await ws.send_bytes(bytes(2**20))
    assert len((await received(ws)).data) == 2**20
    if sender == "caller":
        with contextlib.suppress(ConnectionError):
            await ws.send_bytes(bytes(2**20 + 1))
    else:
        with contextlib.suppress(ConnectionError):
            await server.sockets[0].send_bytes(bytes(2**20 + 1))
    message = await received(ws)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
    await asyncio.wait_for(server.ended.wait(), PATIENCE)
    assert server.close_codes == [1009]
    assert len(server.said) == 1


async def test_the_end_of_a_sandbox_closes_its_sockets(connect: Connect, server: Server, world: World) -> None:
    ws = await connect()
    world.pods.remove("abc")
    message = await received(ws)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await asyncio.wait_for(server.ended.wait(), PATIENCE)
    await until(lambda: not world.counts.open)


async def test_a_silent_socket_is_closed_and_one_that_pings_is_not(
    make_world: MakeWorld, connect_to: Callable[[World], Awaitable[Connect]], server: Server
) -> None:
    world = await make_world(silence=1)
    connect = await connect_to(world)
    pinging, silent = await connect(heartbeat=0.2), await connect()
    listening = asyncio.create_task(received(pinging))
    message = await received(silent)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    assert not listening.done()
    await server.sockets[0].send_str("still there")
    assert (await listening).data == "still there"
    await pinging.close()


@pytest.mark.deadlines(gateway_use=0.2, gateway_tick=0.05)
async def test_a_socket_is_used_as_long_as_bytes_flow(connect: Connect, world: World) -> None:
    ws = await connect()
    while world.pods.uses["abc"] < 4:
        await ws.send_str("x")
        await received(ws)
    await ws.close()


async def test_sockets_count_as_websockets(connect: Connect, world: World) -> None:
    ws = await connect()
    assert world.counts.open == 1
    await ws.close()
    await until(lambda: not world.counts.open)
    assert world.counts.statuses == {("websocket", 101): 1}
