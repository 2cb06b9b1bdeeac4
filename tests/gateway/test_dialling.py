"""Where the gateway dials: only the address of the sandbox's own Pod, when it is ready."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from sandboxes.gateway.upstream import Address
from tests.gateway.conftest import MakeWorld
from tests.gateway.world import PATIENCE, Recorder, World, body, detail, headers_of, pending_pod, ready_pod, until


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_a_port_that_nothing_listens_on_is_502(world: World) -> None:
    port = await world.serve(Recorder())
    candidate = world.pods.put("abc", ready_pod("127.0.0.9"), port)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, detail(answer)) == (
        502, f"Nothing in the sandbox listens on port {port}: the connection was refused",
    )  # fmt: skip
    assert world.counts.failures == {"refused": 1}


@pytest.mark.deadlines(gateway_dial=0.2)
async def test_an_address_that_does_not_answer_is_504(world: World) -> None:
    # A full backlog drops further SYNs, as a network does that leads nowhere.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        candidate = world.pods.put("abc", ready_pod("127.0.0.1"), full.getsockname()[1])
        status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, detail(answer)) == (504, "The sandbox's address did not answer within 0.2 s")
    assert world.counts.failures == {"dial-timeout": 1}


async def test_an_address_that_can_not_be_reached_is_502(world: World, unreachable: set[str]) -> None:
    unreachable.add("127.0.0.9")
    candidate = world.pods.put("abc", ready_pod("127.0.0.9"), 1)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, detail(answer)) == (502, "The sandbox's address can't be reached")


async def test_an_address_that_can_not_be_reached_is_forgotten_for_the_views(
    world: World, unreachable: set[str]
) -> None:
    """The gateway looks at the view again, once, and dials the address that the Pod has by now."""
    sandbox = Recorder()
    port = await world.serve(sandbox, "127.0.0.8")
    unreachable.add("127.0.0.9")
    candidate = world.pods.put("abc", ready_pod("127.0.0.9"), port)
    dialled: list[str] = []
    get = world.gateway.proxy.connections.get

    async def moving(address: Address) -> object:
        dialled.append(address.host)
        if len(dialled) == 1:
            world.pods.put("abc", ready_pod("127.0.0.8"), port)
        return await get(address)

    world.gateway.proxy.connections.get = moving  # type: ignore[method-assign, assignment]
    status, _ = await world.get(f"{world.prefix(candidate)}/", "Content-Length: 0\r\n", method="POST")
    assert (status, dialled) == (200, ["127.0.0.9", "127.0.0.8"])


async def test_a_pod_in_its_nodes_network_is_never_dialled(world: World) -> None:
    sandbox = Recorder()
    port = await world.serve(sandbox)
    candidate = world.pods.put("abc", ready_pod("127.0.0.1", hostNetwork=True), port)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert status == 502
    assert "hostNetwork" in detail(answer)
    assert sandbox.connections == 0


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_a_pod_with_an_ipv6_address_is_dialled(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox, host="::1")
    port = world.pods.find("abc")[0].subject.port
    sandbox.response = f"HTTP/1.1 302 Found\r\nLocation: http://[::1]:{port}/a\r\nContent-Length: 0\r\n\r\n".encode()
    status, answer = await world.get(f"{prefix}/")
    assert (status, headers_of(answer, "Location")) == (302, [f"{prefix}/a".encode()])


async def test_a_request_waits_until_its_sandbox_is_ready(make_world: MakeWorld) -> None:
    world = await make_world(wait=300)
    port = await world.serve(Recorder())
    candidate = world.pods.put("abc", pending_pod(), port)
    asking = asyncio.create_task(world.get(f"{world.prefix(candidate)}/"))
    await until(lambda: world.counts.open)
    pod = ready_pod("127.0.0.1")
    pod["status"]["conditions"][0]["status"] = "False"
    world.pods.put("abc", pod, port)
    world.pods.put("abc", ready_pod(None), port)
    assert not asking.done()
    world.pods.put("abc", ready_pod("127.0.0.1"), port)
    status, answer = await asyncio.wait_for(asking, PATIENCE)
    assert (status, body(answer)) == (200, b"ok")


async def test_a_sandbox_that_does_not_become_ready_is_503_with_the_reason(make_world: MakeWorld) -> None:
    world = await make_world(wait=0.1)
    candidate = world.pods.put("abc", pending_pod("ImagePullBackOff", "no such image"), 1)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, headers_of(answer, "Retry-After")) == (503, [b"2"])
    assert detail(answer) == "The sandbox is not ready: ImagePullBackOff: no such image"


async def test_a_sandbox_that_has_ended_is_503_at_once_and_its_address_not_dialled(make_world: MakeWorld) -> None:
    """Its address may be another Pod's by now."""
    world = await make_world(wait=300)
    sandbox = Recorder()
    await world.sandbox(sandbox)
    pod = ready_pod("127.0.0.1")
    pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "disk"}
    candidate = world.pods.put("abc", pod, world.pods.find("abc")[0].subject.port)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, detail(answer)) == (503, "The sandbox is not ready: Evicted: disk")
    assert sandbox.connections == 0


@pytest.mark.parametrize("is_expiry", [False, True])
async def test_a_request_that_waits_ends_with_its_token(world: World, is_expiry: bool) -> None:
    candidate = world.pods.put("abc", pending_pod(), 1)
    prefix = world.prefix(candidate, expires_at=int(time.time()) + 2 if is_expiry else None)
    asking = asyncio.create_task(world.get(f"{prefix}/"))
    await until(lambda: world.counts.open)
    if not is_expiry:
        world.pods.remove("abc")
    status, _ = await asyncio.wait_for(asking, PATIENCE)
    assert status == 404


async def test_a_caller_that_leaves_while_it_waits_is_forgotten(world: World) -> None:
    candidate = world.pods.put("abc", pending_pod(), 1)
    wire = await world.connect()
    await wire.send(f"GET {world.prefix(candidate)}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await until(lambda: world.counts.open)
    wire.close()
    await until(lambda: not world.counts.open)


async def test_a_request_is_sent_once_whatever_becomes_of_it(world: World) -> None:
    """The sandbox closes a connection that was kept, just as the next request is on its way."""
    heads: list[bytes] = []

    async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if number == 0:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    prefix = await world.sandbox(leaving)
    assert (await world.get(f"{prefix}/"))[0] == 200
    assert (await world.get(f"{prefix}/"))[0] == 502
    assert len(heads) == 2


async def test_a_kept_connection_that_the_sandbox_closed_is_not_used(world: World) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    prefix = await world.sandbox(once)
    for _ in range(20):
        assert (await world.get(f"{prefix}/"))[0] == 200


async def test_a_close_that_has_just_arrived_is_seen_before_a_request_is_sent(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstream = await world.gateway.proxy.connections.get(Address("abc", "u1", *listening.getsockname()))
        peer, _ = listening.accept()
        before = upstream.is_reusable
        peer.close()  # the event loop has no time to see it
        assert (before, upstream.is_reusable) == (True, False)
        upstream.close()


@pytest.mark.deadlines(gateway_idle=30.0)
async def test_a_kept_connection_is_never_used_for_another_pod(world: World) -> None:
    """The same address and port are another sandbox's Pod's now."""
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/")
    assert world.gateway.proxy.connections.idle == 1
    port = world.pods.find("abc")[0].subject.port
    other = world.pods.put("other", ready_pod("127.0.0.1"), port, uid="u2")
    await world.get(f"{world.prefix(other)}/")
    assert sandbox.connections == 2


@pytest.mark.deadlines(gateway_idle=30.0)
async def test_the_end_of_a_sandbox_closes_its_kept_connections(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/")
    world.pods.remove("abc")
    await asyncio.wait_for(sandbox.ended.wait(), PATIENCE)
    assert world.gateway.proxy.connections.idle == 0


@pytest.mark.deadlines(gateway_idle=0.05)
async def test_a_kept_connection_is_closed_soon(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.get(f"{prefix}/")
    await asyncio.wait_for(sandbox.ended.wait(), PATIENCE)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ],
)
async def test_a_connection_with_more_than_its_response_is_not_kept(world: World, response: bytes) -> None:
    sandbox = Recorder(response)
    prefix = await world.sandbox(sandbox)
    for _ in range(2):
        assert body((await world.get(f"{prefix}/"))[1]) == b"ok"
    assert sandbox.connections == 2


async def test_the_views_record_whether_an_address_was_reached(world: World, unreachable: set[str]) -> None:
    served = await world.sandbox(Recorder())
    assert (await world.get(f"{served}/"))[0] == 200
    port = await world.serve(Recorder())
    closed = world.pods.put("closed", ready_pod("127.0.0.8"), port)
    assert (await world.get(f"{world.prefix(closed)}/"))[0] == 502
    gone = world.pods.put("gone", ready_pod("127.0.0.9"), port)
    unreachable.add("127.0.0.9")
    assert (await world.get(f"{world.prefix(gone)}/"))[0] == 502
    assert world.pods.dials == [("abc", True), ("closed", True), ("gone", False)]
