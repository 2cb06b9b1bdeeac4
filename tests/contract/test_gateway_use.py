"""What traffic through the gateway writes to a sandbox's Pod, and what ends it: a key that goes, a strange address."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.app import compose_gateway
from sandboxes.deadlines import Deadlines
from sandboxes.settings import Settings
from tests.contract.gateways import (
    NEW_KEY,
    NS,
    StartReplica,
    becomes,
    cluster,
    get,
    keys,
    reached,
    session,
    start_gateway,
    url_of,
)
from tests.contract.processes import free_port
from tests.contract.service import until

__all__ = ["cluster", "keys", "session", "start_gateway"]


def patches(cluster: Cluster) -> int:
    """Count the requests that have patched the Pod of `a`."""
    path = f"/namespaces/{NS}/pods/sandbox-a"
    return sum(
        request.method.value == "PATCH" and str(request.url).partition("?")[0].endswith(path)
        for request in cluster.kmock.requests
    )


def used_at(cluster: Cluster, sandbox_id: str = "a") -> str:
    pod = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
    assert pod is not None
    return kube.get_annotations(pod).get(kube.USED_ANNOTATION, "")


@pytest.mark.deadlines(use_interval=2.0)
async def test_requests_are_written_as_a_use_once_in_an_interval_at_most(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway(ALLOW_FIELDS="idle_timeout_seconds", REAPER_INTERVAL="0")
    url = await url_of(replica, idle_timeout_seconds=300)
    await reached(session, url)
    loop = asyncio.get_running_loop()
    began, before, requests = loop.time(), patches(cluster), 0

    async def are_written() -> bool:
        nonlocal requests
        assert (await get(session, url))[0] == 200
        requests += 1
        return patches(cluster) >= before + 3

    await until(are_written)
    written, seconds = patches(cluster) - before, loop.time() - began
    # One may have been due at the begin.
    assert written <= seconds / 2.0 + 1
    assert requests > 3 * written


@pytest.mark.deadlines(use_interval=0.2, gateway_use=0.1, gateway_tick=0.05)
async def test_a_websocket_that_is_silent_is_no_use_and_a_stream_is(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway(ALLOW_FIELDS="idle_timeout_seconds", REAPER_INTERVAL="0")
    silent = await url_of(replica, "a", idle_timeout_seconds=300)
    busy = await url_of(replica, "b", idle_timeout_seconds=300)
    await reached(session, silent)
    await reached(session, busy)
    values: set[str] = set()

    def is_used(times: int) -> bool:
        values.add(used_at(cluster, "b"))
        return len(values) >= times

    async with session.ws_connect(f"{silent}/socket") as socket, session.get(f"{busy}/stream"):
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
        await until(lambda: is_used(4))  # by now, these bytes are written
        last = used_at(cluster)
        assert last
        await until(lambda: is_used(10))
        assert used_at(cluster) == last
        await socket.send_str("a")
        await until(lambda: used_at(cluster) > last)


async def test_an_open_stream_ends_soon_after_its_key_has_left_the_file(
    start_gateway: StartReplica, session: aiohttp.ClientSession, keys: Path
) -> None:
    replica = await start_gateway()
    url = await url_of(replica)
    await reached(session, url)
    stream = await session.get(f"{url}/stream")
    assert await stream.content.readline() == b"line\n"
    keys.write_text(f"{NEW_KEY}\n")
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()


async def test_in_a_pod_no_loopback_is_dialled_even_if_the_api_server_is_there(
    start_gateway: StartReplica,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deadlines: Deadlines,
) -> None:
    service = await start_gateway(SANDBOX_GATEWAY_SERVE="false")
    url = await url_of(service)
    port = free_port()
    monkeypatch.setenv("SANDBOX_GATEWAY_PORT", str(port))
    (tmp_path / "apart").mkdir()
    app = await compose_gateway(Settings.load(), tmp_path / "apart", in_pod=True, deadlines=deadlines)
    async with TestClient(TestServer(app)):
        there = dataclasses.replace(service, port=port).at(url)
        await becomes(session, there, 502)
        assert (await get(session, there))[1] == {
            "detail": "The gateway does not dial the address of this sandbox's Pod: it is a loopback address"
        }
