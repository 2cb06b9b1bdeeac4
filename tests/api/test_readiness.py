"""Waiting over HTTP without the live view: the service polls the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pytest_aiohttp.plugin import AiohttpClient

from tests.api.client import create
from tests.api.conftest import URL, Client, MakeClient
from tests.api.server import ServiceServer
from tests.fakes import FakeCluster
from tests.record import events_about, recorded_pods
from tests.waiting import until

StartSandbox = Callable[[int], Awaitable[int]]


# Short pauses: the tests are about behaviour, not about durations.
pytestmark = pytest.mark.deadlines(look=0.05, url_pause=0.05, url_unreached=0.2, events_first=0.05, events_pause=0.1)


@pytest.fixture
async def start_sandbox() -> AsyncIterator[StartSandbox]:
    """Return a function that starts a sandbox's server, which responds with a status, and returns its port."""
    servers: list[TestServer] = []

    async def start(status: int) -> int:
        async def answer(request: web.Request) -> web.Response:
            assert request.path == "/v1/sandbox"
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        assert server.port is not None
        return server.port

    yield start
    for server in servers:
        await server.close()


def set_pod_status(cluster: FakeCluster, name: str, sandbox_id: str = "a") -> None:
    """Set the status and node of the sandbox's Pod to those of a recorded Pod."""
    pod = cluster.pod(sandbox_id)
    assert pod is not None
    recorded = recorded_pods()[name]
    pod["status"] = recorded["status"]
    if "nodeName" in recorded["spec"]:
        pod["spec"]["nodeName"] = recorded["spec"]["nodeName"]


def serve_at(cluster: FakeCluster, port: int, sandbox_id: str = "a") -> None:
    service = cluster.service(sandbox_id)
    assert service is not None
    service["spec"]["ports"][0]["nodePort"] = port


async def waited(client: Client, seconds: float = 20) -> dict[str, Any]:
    response = await client.get(f"{URL}/a?wait_seconds={seconds}")
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", ""])
async def test_invalid_wait_seconds_are_422(client: Client, cluster: FakeCluster, value: str) -> None:
    response = await client.get(f"{URL}/a?wait_seconds={value}")
    assert response.status == 422
    assert (await response.json())["detail"][0]["loc"] == ["query", "wait_seconds"]
    refused = await client.post(URL, json={"sandbox_id": "a", "wait_seconds": value})
    assert refused.status == 422
    assert (await refused.json())["detail"][0]["loc"] == ["body", "wait_seconds"]
    assert cluster.calls == []


async def test_url_checked_is_returned_only_after_a_wait(client: Client) -> None:
    assert "url_checked" not in await create(client)
    assert "url_checked" not in await create(client, wait_seconds=0)
    assert "url_checked" not in await (await client.get(f"{URL}/a?wait_seconds=0")).json()
    assert (await create(client, wait_seconds=0.1))["url_checked"] is False
    assert (await waited(client, 0.1))["url_checked"] is False


async def test_a_wait_ends_at_once_when_ready_and_reachable(
    make_client: MakeClient, cluster: FakeCluster, start_sandbox: StartSandbox
) -> None:
    client = await make_client(NODE_HOST="127.0.0.1")
    await create(client)
    serve_at(cluster, await start_sandbox(200))
    waiting = asyncio.create_task(waited(client))
    set_pod_status(cluster, "pod-ready")
    async with asyncio.timeout(15):
        answer = await waiting
    assert (answer["ready"], answer["url_checked"]) == (True, True)


@pytest.mark.parametrize("status", [503, 302])
async def test_a_non_200_url_is_probed_until_the_wait_ends_without_redirects(
    make_client: MakeClient, cluster: FakeCluster, start_sandbox: StartSandbox, status: int
) -> None:
    client = await make_client(NODE_HOST="127.0.0.1")
    await create(client)
    serve_at(cluster, await start_sandbox(status))
    set_pod_status(cluster, "pod-ready")
    began = asyncio.get_running_loop().time()
    seconds = 2 * 0.2
    answer = await waited(client, seconds)
    assert asyncio.get_running_loop().time() - began >= seconds
    assert (answer["ready"], answer["url_checked"]) == (True, False)


async def test_an_unreachable_url_is_not_a_failure(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(NODE_HOST="127.0.0.1")
    await create(client)
    serve_at(cluster, 1)
    set_pod_status(cluster, "pod-ready")
    async with asyncio.timeout(15):
        answer = await waited(client)
    assert (answer["ready"], answer["url_checked"]) == (True, False)


@pytest.mark.parametrize("name", ["pod-image-pull-backoff", "pod-crash-loop", "pod-failed", "pod-succeeded"])
async def test_a_wait_ends_early_for_a_failed_pod(client: Client, cluster: FakeCluster, name: str) -> None:
    await create(client)
    waiting = asyncio.create_task(waited(client))
    set_pod_status(cluster, name)
    async with asyncio.timeout(15):
        answer = await waiting
    assert (answer["ready"], answer["url_checked"]) == (False, False)
    assert answer["reason"]


@pytest.mark.parametrize("is_new", [False, True])
async def test_an_unschedulable_pod_ends_the_wait_after_fail_fast_after(
    make_client: MakeClient,
    cluster: FakeCluster,
    is_new: bool,
) -> None:
    client = await make_client(FAIL_FAST_AFTER="0.3")
    await create(client)
    set_pod_status(cluster, "pod-unschedulable")
    began = asyncio.get_running_loop().time()
    pod = cluster.pod("a")
    assert pod is not None
    [condition] = pod["status"]["conditions"]
    # The cluster's clock may be ahead: then the time counts from the first observation.
    since = "2999-01-01T00:00:00Z" if is_new else datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pod["status"] = {**pod["status"], "conditions": [{**condition, "lastTransitionTime": since}]}
    async with asyncio.timeout(15):
        answer = await waited(client)
    assert answer["ready"] is False
    if is_new:
        assert asyncio.get_running_loop().time() - began >= 0.3


async def test_a_failed_mount_ends_the_wait_with_the_event_as_reason(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    set_pod_status(cluster, "pod-failed-mount")
    waiting = asyncio.create_task(waited(client))
    await until(lambda: any("/events?" in call[-1] for call in cluster.calls))
    cluster.events = events_about(cluster.pod("a"), "events-failed-mount")
    async with asyncio.timeout(15):
        answer = await waiting
    assert answer["reason"] == "FailedMount"
    assert answer["message"].startswith("MountVolume.SetUp failed")
    assert answer["status"] == "Pending"


async def test_forbidden_events_do_not_fail_the_wait(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    set_pod_status(cluster, "pod-creating")
    cluster.do_before_next("get", lambda: cluster.answer_next("get", "get-forbidden"))  # the first get reads the Pod
    answer = await waited(client, 0.5)
    assert (answer["ready"], answer["status"]) == (False, "Pending")


async def test_a_sandbox_deleted_during_the_wait_is_404(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    waiting = asyncio.create_task(client.get(f"{URL}/a?wait_seconds=20"))
    before = len(cluster.calls)
    await until(lambda: len(cluster.calls) > before + 1)
    await client.delete(f"{URL}/a")
    async with asyncio.timeout(15):
        response = await waiting
    assert response.status == 404
    assert (await response.json())["status"] == "NotFound"


@pytest.mark.deadlines(wait=0.2)
async def test_the_wait_of_a_create_is_capped(client: Client) -> None:
    began = asyncio.get_running_loop().time()
    answer = await create(client, wait_seconds=1e9)
    assert 0.2 <= asyncio.get_running_loop().time() - began < 3
    assert answer["ready"] is False


async def test_a_create_is_200_if_the_cluster_fails_during_the_wait(client: Client, cluster: FakeCluster) -> None:
    creating = asyncio.create_task(create(client, wait_seconds=0.3))
    await until(lambda: cluster.pod("a") is not None)
    cluster.answer_next("get", "refused", times=1000)
    assert (await creating)["sandbox_id"] == "a"
    assert (await client.get(f"{URL}/a?wait_seconds=1")).status == 503


async def test_a_disconnect_ends_the_wait_and_keeps_the_sandbox(
    make_client: MakeClient, aiohttp_client: AiohttpClient, cluster: FakeCluster
) -> None:
    client: TestClient[Any, Any] = await aiohttp_client(ServiceServer((await make_client()).app))
    posting = asyncio.create_task(create(client, wait_seconds=20))
    await until(lambda: cluster.verbs()["get"] > 3)  # created, and polled
    posting.cancel()
    await asyncio.gather(posting, return_exceptions=True)

    async def is_quiet() -> bool:
        before = len(cluster.calls)
        await asyncio.sleep(0.15)  # three polls
        return len(cluster.calls) == before

    await until(is_quiet)
    assert cluster.pod("a") is not None


async def test_a_wait_does_not_block_other_requests_of_the_same_id(client: Client, cluster: FakeCluster) -> None:
    waiting = asyncio.create_task(create(client, wait_seconds=20))
    await until(lambda: cluster.pod("a") is not None)
    async with asyncio.timeout(15):
        await create(client)
        assert (await client.delete(f"{URL}/a")).status == 200
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize(("status", "checked"), [(200, True), (503, False)])
async def test_a_wait_asks_the_pods_own_address_behind_the_gateway(
    make_client: MakeClient, cluster: FakeCluster, start_sandbox: StartSandbox, status: int, checked: bool
) -> None:
    port = await start_sandbox(status)
    # Nothing listens at the gateway's URL: it may lead through proxies that this process can't reach.
    url = "http://gateway.invalid"
    client = await make_client(SANDBOX_ACCESS="gateway", SANDBOX_GATEWAY_URL=url, SANDBOX_CONTAINER_PORT=str(port))
    await create(client)
    set_pod_status(cluster, "pod-ready")
    pod = cluster.pod("a")
    assert pod is not None
    pod["status"]["podIP"] = "127.0.0.1"
    answer = await waited(client, 20 if checked else 0.5)
    assert answer["url_checked"] is checked
    assert answer["sandbox_url"].startswith(f"{url}/s/a/")
