"""Health and readiness over HTTP: the responses, and the kubectl calls that they cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from sandboxes.ops.rights import REVIEW
from tests.api.conftest import Client, MakeClient
from tests.fakes import FakeCluster
from tests.record import case, case_names

PROBE = ("get", "--raw", "/readyz")
FIRST = [PROBE, REVIEW]


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
    assert await readiness(client) == (200, {"serving": "ok", "kubectl": "ok", "api_server": "ok", "rights": "ok"})
    assert cluster.calls == FIRST


async def test_concurrent_probes_share_one_call(client: Client, cluster: FakeCluster) -> None:
    answers = await asyncio.gather(*(readiness(client) for _ in range(100)))
    assert {status for status, _ in answers} == {200}
    assert cluster.calls == FIRST
    await readiness(client)
    assert cluster.calls == FIRST


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
        {"serving": "ok", "kubectl": "ok", "api_server": "The cluster can't be reached", "rights": "ok"},
    )
    assert (await readiness(client))[0] == 200
    assert cluster.calls == [PROBE, *FIRST]


@pytest.mark.parametrize("name", [name for name in case_names() if case(name).returncode == 1])
async def test_readiness_never_contains_kubectl_output(client: Client, cluster: FakeCluster, name: str) -> None:
    cluster.answer_next("get", name)
    status, checks = await readiness(client)
    assert status == 503
    message = checks.pop("api_server")
    assert checks == {"serving": "ok", "kubectl": "ok", "rights": "ok"}
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


BASIC = ("create", "delete", "get", "list", "watch")


def role(cluster: FakeCluster, *, pods: Iterable[str] = BASIC, services: Iterable[str] = BASIC, **status: Any) -> None:
    """Let the review show a Role with these verbs."""
    rules = [
        {"verbs": list(verbs), "apiGroups": [""], "resources": [resource]}
        for resource, verbs in (("pods", pods), ("services", services))
    ]
    cluster.review["status"] |= {"resourceRules": rules, **status}


def reviews(cluster: FakeCluster) -> int:
    return cluster.calls.count(REVIEW)


@uncached
async def test_a_right_that_every_create_needs_and_that_is_missing_is_named(
    client: Client, cluster: FakeCluster
) -> None:
    role(cluster, pods=("delete", "get", "list", "patch", "watch"), services=("delete", "get", "watch"))
    status, checks = await readiness(client)
    said = "The provisioner lacks rights that a create needs: create on pods; create, list on services"
    assert (status, checks["api_server"], checks["rights"]) == (503, "ok", said)
    role(cluster)
    assert (await readiness(client))[0] == 200


@uncached
async def test_rights_are_reviewed_rarely_and_each_time_while_one_is_missing(
    client: Client, cluster: FakeCluster
) -> None:
    role(cluster, pods=())
    for _ in range(3):
        await readiness(client)
    assert reviews(cluster) == 3
    role(cluster)
    for _ in range(3):
        await readiness(client)
    assert (reviews(cluster), cluster.calls.count(PROBE)) == (4, 6)


@pytest.mark.deadlines(ready_believed=-1.0, rights_believed=-1.0)
async def test_a_right_that_is_taken_back_is_missed_after_a_while(client: Client, cluster: FakeCluster) -> None:
    assert (await readiness(client))[0] == 200
    role(cluster, services=())
    assert (await readiness(client))[0] == 503


@uncached
@pytest.mark.parametrize("status", [{"incomplete": True}, {"evaluationError": "webhook"}])
async def test_a_review_that_may_lack_rules_never_makes_it_unready(
    client: Client, cluster: FakeCluster, status: dict[str, Any]
) -> None:
    role(cluster, pods=(), **status)
    for _ in range(2):
        assert (await readiness(client))[0] == 200
    assert reviews(cluster) == 1


@uncached
@pytest.mark.parametrize("name", ["get-forbidden", "refused", "server-hangs"])
async def test_a_review_that_fails_never_makes_it_unready(client: Client, cluster: FakeCluster, name: str) -> None:
    cluster.answer_next("create", name)
    for _ in range(2):
        assert (await readiness(client))[0] == 200
    assert reviews(cluster) == 1


@uncached
async def test_a_review_that_proves_nothing_never_makes_it_unready(client: Client, cluster: FakeCluster) -> None:
    cluster.print_next("create", b"{}")
    assert (await readiness(client))[0] == 200


@pytest.mark.deadlines(ready=0.1)
async def test_a_review_that_hangs_never_makes_it_unready(client: Client, cluster: FakeCluster) -> None:
    cluster.hold_next("create")
    assert (await readiness(client))[0] == 200


@uncached
async def test_what_is_missing_stays_missing_while_it_can_not_be_asked_again(
    client: Client, cluster: FakeCluster
) -> None:
    role(cluster, pods=())
    before = await readiness(client)
    cluster.answer_next("create", "refused")
    assert await readiness(client) == before


@pytest.mark.deadlines(ready_believed=-1.0, rights_believed=-1.0)
async def test_missing_rights_of_options_are_one_line_of_the_log_and_ready(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sandboxes.ops")
    role(cluster)
    for _ in range(3):
        assert (await readiness(client))[0] == 200
    (said,) = (record.getMessage() for record in caplog.records if record.name == "sandboxes.ops.granted")
    assert said.startswith("without rights: patch on pods, so sandboxes are made by `kubectl create`: ")
    assert "; get on pods/log, so diagnostics have no logs" in said


async def test_a_right_that_the_settings_demand_is_needed(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(SANDBOX_IDLE_TIMEOUT="60")
    role(cluster)
    said = "The provisioner lacks rights that a create needs: patch on pods; patch on services"
    assert (await readiness(client))[1]["rights"] == said
