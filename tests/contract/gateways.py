"""Starts services with the gateway on a devcluster whose Pods answer, and calls sandboxes by their URLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from devcluster import Cluster
from tests.contract.processes import free_port
from tests.contract.service import Provisioner, StartProvisioner, create
from tests.waiting import until

NS = "deer-flow"
KEY, NEW_KEY = "k" * 44, "n" * 44
PODS_ANSWER = pytest.mark.devcluster(pod_servers=True, speed=1)
"""For tests with `start_gateway`: Pods answer at their own addresses."""
NOT_FOUND = (404, {"detail": "No sandbox has this URL"})


@dataclass
class Replica:
    """A service with a gateway, which listens on `port`."""

    service: Provisioner
    port: int

    def at(self, url: str) -> str:
        """Return a sandbox's URL as it is at this replica's gateway."""
        return f"http://127.0.0.1:{self.port}/s/{url.partition('/s/')[2]}"


StartReplica = Callable[..., Awaitable[Replica]]


async def sandbox_server(request: web.BaseRequest) -> web.StreamResponse:
    """Answer as a sandbox: `/stream` sends a line every 50 ms, `/socket` returns messages, others say who they are."""
    if request.path == "/socket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
    if request.path == "/stream":
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"line\n")
            await asyncio.sleep(0.05)
    transport = request.transport
    assert transport is not None
    host, port = transport.get_extra_info("sockname")[:2]
    return web.json_response({"host": host, "port": port, "path": request.path_qs, "headers": dict(request.headers)})


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return the file with the keys of all gateways of the test."""
    path = tmp_path / "gateway-keys"
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture
def start_gateway(start_provisioner: StartProvisioner, cluster: Cluster, keys: Path) -> StartReplica:
    """Return a function that starts a service with the gateway; all of them name the first one in their URLs.

    The test has `PODS_ANSWER`: its Pods are sandboxes that the gateway reaches.
    """
    cluster.pods_answer_by(sandbox_server)
    ports: list[int] = []

    async def start(**variables: str) -> Replica:
        port = free_port()
        ports.append(port)
        service = await start_provisioner(
            **{
                "SANDBOX_ACCESS": "gateway",
                "SANDBOX_GATEWAY_DIAL": "pod-ip",
                "SANDBOX_GATEWAY_URL": f"http://127.0.0.1:{ports[0]}",
                "SANDBOX_GATEWAY_PORT": str(port),
                "SANDBOX_GATEWAY_KEYS_FILE": str(keys),
                **variables,
            }
        )
        return Replica(service, port)

    return start


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client of the gateways, which may have any number of connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def get(session: aiohttp.ClientSession, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """GET a URL and return status and JSON."""
    async with session.get(url, **options) as response:
        return response.status, await response.json()


async def reached(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return the sandbox's answer, once it gives one."""
    found: dict[str, Any] = {}

    async def answers() -> bool:
        status, body = await get(session, url)
        found.update(body)
        return status == 200

    await until(answers)
    return found


async def becomes(session: aiohttp.ClientSession, url: str, status: int) -> None:
    """Wait until the URL answers by this status."""

    async def is_so() -> bool:
        return (await get(session, url))[0] == status

    await until(is_so)


async def url_of(replica: Replica, sandbox_id: str = "a", **fields: Any) -> str:
    """Create a sandbox and return its URL."""
    return str((await create(replica.service, sandbox_id, **fields))["sandbox_url"])
