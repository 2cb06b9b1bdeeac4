"""Server-sent events over HTTP: format, authentication, and the end of a stream."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.deadlines import Deadlines
from sandboxes.kubectl.client import Kubectl
from sandboxes.service import events
from sandboxes.service.sandboxes import SandboxService
from sandboxes.settings import Settings
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.templates import Template
from tests.api.conftest import Client, MakeClient
from tests.api.server import ServiceServer
from tests.fakes import FakeCluster
from tests.informers import StillView
from tests.waiting import until

EVENTS = "/api/events"


@dataclass
class Service:
    """A service whose live view a test fills."""

    client: TestClient[Any, Any]
    view: StillView
    lifecycle: SandboxService


MakeService = Callable[..., Awaitable[Service]]


@pytest.fixture
def make_service(
    aiohttp_client: AiohttpClient,
    cluster: FakeCluster,
    make_settings: Callable[..., Settings],
    template: Template,
    deadlines: Deadlines,
) -> MakeService:
    async def make(**variables: object) -> Service:
        settings = make_settings(**variables)
        view = StillView()
        kubectl = Kubectl(cluster, max_processes=8, max_waiting=200)
        lifecycle = SandboxService(
            Cluster(kubectl, view, "rec", deadlines=deadlines), {DEFAULT_TEMPLATE: template}, settings
        )
        return Service(await aiohttp_client(ServiceServer(create_app(lifecycle, settings))), view, lifecycle)

    return make


@pytest.fixture
async def service(make_service: MakeService) -> Service:
    return await make_service()


async def frame(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Read one event; a comment has the field `""`."""
    fields = {}
    async with asyncio.timeout(30):
        while (line := (await response.content.readline()).decode()) != "\n":
            assert line.endswith("\n"), "the stream has ended"
            name, _, value = line.rstrip("\n").partition(":")
            fields[name] = value.removeprefix(" ")
    return fields


def readers(service: Service) -> int:
    return len(service.lifecycle.feed._readers)  # noqa: SLF001 - not visible from outside


def connections(service: Service) -> int:
    assert isinstance(service.client.server, ServiceServer)
    return len(service.client.server.handler.connections)


async def test_a_stream_starts_with_the_state_followed_by_each_change(service: Service) -> None:
    service.view.put("a")
    async with service.client.get(EVENTS) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Request-ID"]
        state = await frame(response)
        assert state.keys() == {"id", "event", "data"}
        assert state["event"] == "state"
        assert json.loads(state["data"])["count"] == 1
        service.view.put("a", pod="pod-ready")
        ready = await frame(response)
        assert (ready["event"], json.loads(ready["data"])["sandbox_id"]) == ("ready", "a")
        assert int(ready["id"]) > int(state["id"])
        service.view.drop("a")
        deleted = await frame(response)
        assert deleted["event"] == "deleted"
        assert json.loads(deleted["data"])["status"] == "NotFound"


@pytest.mark.deadlines(sse_comment=0.05)
async def test_an_idle_stream_sends_comments(service: Service) -> None:
    async with service.client.get(EVENTS) as response:
        await frame(response)
        assert await frame(response) == {"": ""}
        assert await frame(response) == {"": ""}


async def test_a_disconnected_reader_is_removed_and_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    response = await service.client.get(EVENTS)
    await frame(response)
    assert readers(service) == 1
    assert "event stream to 127.0.0.1 opened" in caplog.text
    response.close()
    await until(lambda: readers(service) == 0)
    await until(lambda: f"GET {EVENTS} 200" in caplog.text)


async def test_events_require_the_key(make_service: MakeService) -> None:
    service = await make_service(PROVISIONER_API_KEY="k")
    assert (await service.client.get(EVENTS)).status == 401
    async with service.client.get(EVENTS, headers={"X-API-Key": "k"}) as response:
        assert response.status == 200


async def test_events_without_the_live_view_are_503(client: Client) -> None:
    response = await client.get(EVENTS)
    assert response.status == 503
    assert "live view" in (await response.json())["detail"]
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_events_accept_only_get(service: Service, method: str) -> None:
    assert (await service.client.request(method, EVENTS)).status == 405


async def test_a_slow_reader_is_disconnected_without_affecting_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 20)
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:
        slow.setblocking(False)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(slow, ("127.0.0.1", service.client.port))
        await loop.sock_sendall(slow, b"GET /api/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: readers(service) == 1)
        async with service.client.get(EVENTS, read_bufsize=2**24) as quick:
            await frame(quick)
            number = 0
            async with asyncio.timeout(20):
                while readers(service) == 2:
                    number += 1
                    service.view.put(f"s{number}", node=f"n{number}" * 100_000)
                    assert (await frame(quick))["event"] == "created"
            service.view.put("last")
            assert json.loads((await frame(quick))["data"])["sandbox_id"] == "last"

        # The service closes the connection without waiting for the slow reader.
        await until(lambda: connections(service) == 0)

        # Data in the socket buffers still arrives.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)

        async def is_disconnected() -> bool:
            try:
                return await loop.sock_recv(slow, 2**20) == b""
            except ConnectionResetError:
                return True

        await until(is_disconnected)


@pytest.mark.deadlines(sse_write=0.1)
async def test_a_reader_that_never_reads_is_disconnected_after_the_timeout(service: Service) -> None:
    for number in range(20):
        service.view.put(f"s{number}", node="n" * 1_000_000)
    with socket.socket() as stuck:
        stuck.setblocking(False)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stuck, ("127.0.0.1", service.client.port))
        await loop.sock_sendall(stuck, b"GET /api/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: readers(service) == 1)
        await until(lambda: readers(service) == 0)
        await until(lambda: connections(service) == 0)


async def test_shutdown_ends_streams_at_once(service: Service) -> None:
    response = await service.client.get(EVENTS)
    await frame(response)
    began = asyncio.get_running_loop().time()
    await service.client.server.close()
    assert await response.content.read() == b""
    assert asyncio.get_running_loop().time() - began < 2


async def test_shutdown_does_not_wait_for_a_blocked_stream(service: Service) -> None:
    for number in range(300):
        service.view.put(f"s{number}", node="n" * 4000)
    response = await service.client.get(EVENTS, read_bufsize=1)
    await until(lambda: readers(service) == 1)
    began = asyncio.get_running_loop().time()
    await service.client.server.close()
    assert asyncio.get_running_loop().time() - began < 5
    response.close()


async def test_shutdown_ends_a_waiting_create_at_once(make_client: MakeClient) -> None:
    client = await make_client()

    async def create() -> Any:
        async with client.post("/api/sandboxes", json={"sandbox_id": "a", "wait_seconds": 20}) as response:
            return response.status, await response.json()

    creating = asyncio.create_task(create())

    async def is_made() -> bool:
        return (await client.get("/api/sandboxes/a")).status == 200

    await until(is_made)
    began = asyncio.get_running_loop().time()
    await client.server.close()
    status, body = await creating
    assert (status, body["ready"]) == (200, False)
    assert asyncio.get_running_loop().time() - began < 5
