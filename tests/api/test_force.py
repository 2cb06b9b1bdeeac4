"""Sandboxes on a lost node: what `force` deletes and replaces, and what it leaves alone."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Client, MakeClient
from tests.fakes import FakeCluster
from tests.record import case

URL = "/api/sandboxes"
WARNING = "The sandbox was deleted by force: its processes may still run on its node, and write to its volumes"


@pytest.fixture
async def client(make_client: MakeClient) -> Client:
    return await make_client(ALLOW_FIELDS="force,wait_seconds")


async def make(client: Client, **fields: object) -> dict[str, Any]:
    response = await client.post(URL, json={"sandbox_id": "a", **fields})
    body: dict[str, Any] = await response.json()
    return {"code": response.status, **body}


def pod_of(cluster: FakeCluster) -> dict[str, Any]:
    pod = cluster.pod("a")
    assert pod is not None
    return pod


def lose(cluster: FakeCluster) -> dict[str, Any]:
    """Let the node of the Pod be lost, as recorded; return the Pod."""
    pod = pod_of(cluster)
    recorded = case("pod-node-lost").stdout
    pod["status"] = copy.deepcopy(recorded["status"])
    pod["spec"]["nodeName"] = recorded["spec"]["nodeName"]
    return cluster.put(pod)


def terminate(cluster: FakeCluster, *, seconds_ago: float) -> dict[str, Any]:
    """Let the Pod be terminating, with its deadline so long ago; return the Pod."""
    pod = pod_of(cluster)
    deadline = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    pod["metadata"] |= {
        "deletionTimestamp": deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "deletionGracePeriodSeconds": 5,
    }
    return cluster.put(pod)


def forced(cluster: FakeCluster) -> list[tuple[str, ...]]:
    return [call for call in cluster.calls if call[:2] == ("delete", "--raw")]


@pytest.mark.parametrize("late", [True, False])
async def test_a_lost_sandbox_is_deleted_by_force(client: Client, cluster: FakeCluster, late: bool) -> None:
    await make(client)
    if late:
        terminate(cluster, seconds_ago=60)
    else:
        lose(cluster)
    response = await client.delete(f"{URL}/a?force=true")
    assert (response.status, await response.json()) == (200, {"ok": True, "sandbox_id": "a", "warning": WARNING})
    assert cluster.objects == {}


async def test_the_force_delete_has_the_uid_and_no_grace_period(client: Client, cluster: FakeCluster) -> None:
    await make(client)
    uid = lose(cluster)["metadata"]["uid"]
    recorded = copy.deepcopy(case("delete-force-node-lost").stdin)
    recorded["preconditions"]["uid"] = uid
    await client.delete(f"{URL}/a?force=true")
    [sent] = [stdin for args, stdin in cluster.sent if args[:2] == ("delete", "--raw")]
    assert json.loads(sent or b"") == recorded


@pytest.mark.parametrize("answer", ["delete-force-other-uid", "delete-force-successor"])
async def test_a_successor_of_the_lost_pod_is_not_deleted(client: Client, cluster: FakeCluster, answer: str) -> None:
    await make(client)
    lose(cluster)
    cluster.answer_next("delete", answer)
    response = await client.delete(f"{URL}/a?force=true")
    assert response.status == 503
    assert cluster.pod("a") is not None
    assert cluster.service("a") is not None


async def test_a_lost_pod_that_is_gone_meanwhile_counts_as_deleted(client: Client, cluster: FakeCluster) -> None:
    await make(client)
    lose(cluster)
    cluster.say_next("delete", case("delete-force-again").stderr.replace("sandbox-lost", "sandbox-a"))
    assert (await client.delete(f"{URL}/a?force=true")).status == 200


@pytest.mark.parametrize("state", ["alive", "terminating"])
async def test_a_sandbox_that_is_not_lost_is_409_and_stays(client: Client, cluster: FakeCluster, state: str) -> None:
    await make(client)
    cluster.run_pod("a")
    if state == "terminating":
        terminate(cluster, seconds_ago=-30)
    response = await client.delete(f"{URL}/a?force=true")
    assert response.status == 409
    assert (await response.json())["detail"].startswith("Sandbox 'a' is not lost")
    assert cluster.pod("a") is not None
    assert cluster.service("a") is not None


async def test_force_deletes_nothing_where_nothing_is(client: Client, cluster: FakeCluster) -> None:
    response = await client.delete(f"{URL}/a?force=true")
    assert (response.status, await response.json()) == (200, {"ok": True, "sandbox_id": "a"})
    assert forced(cluster) == []


@pytest.mark.parametrize("late", [True, False])
async def test_a_create_with_force_makes_a_lost_sandbox_anew(client: Client, cluster: FakeCluster, late: bool) -> None:
    await make(client)
    old = terminate(cluster, seconds_ago=60) if late else lose(cluster)
    answer = await make(client, force=True)
    assert (answer["code"], answer["warning"], answer["status"]) == (200, WARNING, "Pending")
    assert pod_of(cluster)["metadata"]["uid"] != old["metadata"]["uid"]
    assert "warning" not in await make(client)


async def test_a_create_that_waits_has_the_warning_too(client: Client, cluster: FakeCluster) -> None:
    await make(client)
    lose(cluster)
    answer = await make(client, force=True, wait_seconds=0.1)
    assert (answer["code"], answer["warning"], answer["url_checked"]) == (200, WARNING, False)


async def test_a_create_with_force_of_a_living_sandbox_is_409(client: Client, cluster: FakeCluster) -> None:
    await make(client)
    cluster.run_pod("a")
    before = pod_of(cluster)["metadata"]["uid"]
    assert (await make(client, force=True))["code"] == 409
    assert pod_of(cluster)["metadata"]["uid"] == before
    assert (await make(client))["code"] == 200


async def test_a_create_with_force_of_a_new_sandbox_is_an_ordinary_one(client: Client, cluster: FakeCluster) -> None:
    answer = await make(client, force=True)
    assert answer["code"] == 200
    assert "warning" not in answer
    assert forced(cluster) == []


@pytest.mark.parametrize("late", [True, False])
async def test_another_owners_lost_sandbox_is_not_replaced(client: Client, cluster: FakeCluster, late: bool) -> None:
    await make(client, thread_id="t1")
    if late:
        terminate(cluster, seconds_ago=60)
    else:
        lose(cluster)
    answer = await make(client, thread_id="t2", force=True)
    assert (answer["code"], answer["detail"]) == (409, "Sandbox 'a' belongs to another thread or user")
    assert forced(cluster) == []


@pytest.mark.deadlines(create=0.3)
@pytest.mark.parametrize("allowed", [True, False])
async def test_without_force_the_503_tells_that_the_node_is_lost(
    make_client: MakeClient, cluster: FakeCluster, allowed: bool
) -> None:
    client = await make_client(ALLOW_FIELDS="force" if allowed else "none")
    await make(client)
    lose(cluster)
    terminate(cluster, seconds_ago=60)
    answer = await make(client)
    hint = "; `force` deletes it without an answer" if allowed else ""
    sentence = f"The sandbox of the same id is still being deleted: its node does not answer{hint}"
    assert (answer["code"], answer["detail"]) == (503, sentence)


@pytest.mark.parametrize("value", ["true", "false", "x"])
async def test_a_delete_by_force_that_is_not_allowed_is_403_by_default(
    make_client: MakeClient, cluster: FakeCluster, value: str
) -> None:
    client = await make_client()
    response = await client.delete(f"{URL}/a?force={value}")
    assert (response.status, await response.json()) == (
        403,
        {"detail": "The operator does not allow these fields: force"},
    )
    assert cluster.calls == []
    assert (await make(client, force=True))["code"] == 403
