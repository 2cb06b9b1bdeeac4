"""Reconciliation for DeerFlow: a sandbox is found, or absent only if the cluster confirms it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.client import assert_is_json, create
from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster

RECONCILIATION = "/api/reconciliation/sandboxes"
ABSENT = {
    "status": "absent",
    "backend_namespace": "deer-flow",
    "incarnation_id": None,
    "sandbox_url": None,
    "thread_id": None,
    "user_id": None,
    "mount_contract_version": 2,
}


async def reconciled(client: Client, sandbox_id: str = "a") -> Any:
    response = await client.get(f"{RECONCILIATION}/{sandbox_id}")
    assert response.status == 200, await response.text()
    assert_is_json(response)
    return await response.json()


async def test_a_sandbox_is_found_with_its_owner_and_pod_uid(client: Client, cluster: FakeCluster) -> None:
    made = await create(client, thread_id="t", user_id="u")
    pod = cluster.pod("a")
    assert pod is not None
    assert await reconciled(client) == {
        "sandbox_id": "a",
        "status": "found",
        "backend_namespace": "deer-flow",
        "incarnation_id": pod["metadata"]["uid"],
        "sandbox_url": made["sandbox_url"],
        "thread_id": "t",
        "user_id": "u",
        "mount_contract_version": 2,
    }


async def test_a_recreated_sandbox_has_another_incarnation_id(client: Client) -> None:
    await create(client)
    first = await reconciled(client)
    assert (await client.delete(f"{URL}/a")).status == 200
    await create(client)
    assert (await reconciled(client))["incarnation_id"] not in (None, first["incarnation_id"])


async def test_a_missing_sandbox_is_absent(client: Client, cluster: FakeCluster) -> None:
    assert await reconciled(client) == {"sandbox_id": "a", **ABSENT}
    assert cluster.verbs()["get"] == 1


async def test_a_deleted_sandbox_is_absent(client: Client) -> None:
    await create(client)
    assert (await client.delete(f"{URL}/a")).status == 200
    assert await reconciled(client) == {"sandbox_id": "a", **ABSENT}


async def test_a_pod_without_a_service_is_found_without_a_url(client: Client, cluster: FakeCluster) -> None:
    await create(client, user_id="u")
    whole = await reconciled(client)
    service = cluster.service("a")
    assert service is not None
    del cluster.objects[cluster.key(service)]
    assert (await client.get(f"{URL}/a")).status == 404
    assert await reconciled(client) == {**whole, "sandbox_url": None}


async def test_a_terminating_pod_is_found(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    whole = await reconciled(client)
    pod = cluster.pod("a")
    assert pod is not None
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert (await client.get(f"{URL}/a")).status == 404
    assert await reconciled(client) == whole


async def test_a_service_without_a_pod_is_absent(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    pod = cluster.pod("a")
    assert pod is not None
    del cluster.objects[cluster.key(pod)]
    assert await reconciled(client) == {"sandbox_id": "a", **ABSENT}


async def test_a_foreign_pod_with_the_name_is_absent(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    pod = cluster.pod("a")
    assert pod is not None
    del pod["metadata"]["labels"]["app"]
    assert await reconciled(client) == {"sandbox_id": "a", **ABSENT}


@pytest.mark.parametrize(("quoted", "sandbox_id"), [("A", "A"), ("a_b", "a_b"), ("a" * 52, "a" * 52), ("a%0A", "a\n")])
async def test_an_invalid_id_is_absent(client: Client, cluster: FakeCluster, quoted: str, sandbox_id: str) -> None:
    assert await reconciled(client, quoted) == {"sandbox_id": sandbox_id, **ABSENT}
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("case", "status"),
    [("get-forbidden", 502), ("unauthorized", 502), ("unknown-authority", 503), ("server-hangs", 504)],
)
async def test_a_failed_read_is_an_error_and_never_absent(
    client: Client, cluster: FakeCluster, case: str, status: int
) -> None:
    for made in (False, True):
        if made:
            await create(client)
        cluster.answer_next("get", case)
        response = await client.get(f"{RECONCILIATION}/a")
        assert response.status == status
        assert_is_json(response)
        assert "absent" not in await response.text()


async def test_empty_kubectl_output_is_503_instead_of_absent(client: Client, cluster: FakeCluster) -> None:
    cluster.defaults = {"get"}
    assert (await client.get(f"{RECONCILIATION}/a")).status == 503


async def test_every_sandbox_response_has_the_mount_contract_version(client: Client) -> None:
    made = await create(client)
    renewed = await client.post(f"{URL}/a/renew", json={"ttl_seconds": 60})
    touched = await client.post(f"{URL}/a/touch")
    got = await client.get(f"{URL}/a")
    (listed,) = (await (await client.get(URL)).json())["sandboxes"]
    answers = [made, listed, *[await response.json() for response in (renewed, touched, got)]]
    assert [answer["mount_contract_version"] for answer in answers] == [2] * 5
