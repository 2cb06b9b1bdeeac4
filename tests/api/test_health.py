"""Health and readiness over HTTP: the responses, and the kubectl calls that they cost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.api.conftest import Client, MakeClient
from tests.fakes import FakeCluster
from tests.record import case, case_names

PROBE = ("get", "--raw", "/readyz")


# Disables the cache of readiness.
uncached = pytest.mark.deadlines(ready_believed=-1.0)


async def readiness(client: Client) -> tuple[int, dict[str, str]]:
    response = await client.get("/readyz")
    assert response.content_type == "application/json"
    answer = await response.json()
    assert set(answer) == {"ready", "checks"}
    assert answer["ready"] is (response.status == 200)
    checks: dict[str, str] = answer["checks"]
    return response.status, checks


@pytest.mark.parametrize("path", ["/health", "/livez"])
async def test_liveness_needs_no_cluster_and_no_key(make_client: MakeClient, cluster: FakeCluster, path: str) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    response = await client.get(path)
    assert (response.status, await response.json()) == (200, {"status": "ok"})
    assert cluster.calls == []


async def test_readiness_needs_no_key(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    assert await readiness(client) == (200, {"serving": "ok", "kubectl": "ok", "api_server": "ok"})
    assert cluster.calls == [PROBE]


async def test_concurrent_probes_share_one_call(client: Client, cluster: FakeCluster) -> None:
    answers = await asyncio.gather(*(readiness(client) for _ in range(100)))
    assert {status for status, _ in answers} == {200}
    assert cluster.calls == [PROBE]
    await readiness(client)
    assert cluster.calls == [PROBE]


async def test_concurrent_probes_share_one_failed_call(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("get", "refused")
    answers = await asyncio.gather(*(readiness(client) for _ in range(100)))
    assert {status for status, _ in answers} == {503}
    assert cluster.calls == [PROBE]


@uncached
async def test_a_cached_result_expires(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("get", "refused")
    assert await readiness(client) == (
        503,
        {"serving": "ok", "kubectl": "ok", "api_server": "The cluster can't be reached"},
    )
    assert (await readiness(client))[0] == 200
    assert len(cluster.calls) == 2


@pytest.mark.parametrize("name", [name for name in case_names() if case(name).returncode == 1])
async def test_readiness_never_contains_kubectl_output(client: Client, cluster: FakeCluster, name: str) -> None:
    cluster.answer_next("get", name)
    status, checks = await readiness(client)
    assert status == 503
    message = checks.pop("api_server")
    assert checks == {"serving": "ok", "kubectl": "ok"}
    assert message != "ok"
    assert not any(line in message for line in case(name).stderr.splitlines() if line.strip())
    assert "127.0.0.1" not in message


async def test_a_forbidden_readyz_counts_as_ready(client: Client, cluster: FakeCluster) -> None:
    cluster.say_next("get", 'Error from server (Forbidden): forbidden: User "u" cannot get path "/readyz"\n')
    assert (await readiness(client))[0] == 200


@pytest.mark.deadlines(ready=0.05)
async def test_a_timeout_of_the_cluster_is_not_ready(client: Client, cluster: FakeCluster) -> None:
    cluster.hold_next("get")
    status, checks = await readiness(client)
    assert (status, checks["api_server"]) == (503, "The cluster did not answer in time")


async def test_a_full_queue_does_not_affect_readiness(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(KUBECTL_MAX_PROCESSES="1", KUBECTL_MAX_WAITING="0")
    go = cluster.hold_next("get")
    request = asyncio.create_task(client.get("/api/sandboxes"))
    while not cluster.calls:
        await asyncio.sleep(0)
    assert (await client.get("/api/sandboxes/a")).status == 503
    assert (await readiness(client))[0] == 200
    go.set()
    assert (await request).status == 200


async def test_a_replica_that_shuts_down_is_not_ready(client: Client, cluster: FakeCluster) -> None:
    go = cluster.hold_next("get")
    earlier = asyncio.create_task(readiness(client))
    while not cluster.calls:
        await asyncio.sleep(0)
    assert client.app is not None
    await client.app.shutdown()
    ending = (503, {"serving": "The provisioner is shutting down"})
    assert await readiness(client) == ending
    go.set()
    assert await earlier == ending
    assert (await client.get("/livez")).status == 200


@uncached
async def test_each_change_of_readiness_is_logged_once(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sandboxes.ops.health")
    for _ in range(3):
        cluster.answer_next("get", "refused")
        await readiness(client)
    for _ in range(3):
        await readiness(client)
    messages = [record.getMessage() for record in caplog.records if record.name == "sandboxes.ops.health"]
    assert messages == ["not ready: api_server: The cluster can't be reached", "ready"]
