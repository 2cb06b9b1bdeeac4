"""Errors of the cluster (rejections, outages, timeouts, a full queue): the responses, and the objects left behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.client import assert_is_json, create
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster
from tests.record import case as recorded


@pytest.mark.parametrize(
    ("case", "status", "retry"),
    [
        ("apply-forbidden-no-create", 502, False),
        ("apply-pod-security-violation", 502, False),
        ("apply-unknown-field-ignored", 502, False),
        ("apply-quota-exceeded", 429, True),
        ("apply-nodeports-exhausted", 429, True),
        ("apply-namespace-terminating", 503, True),
        ("unknown-authority", 503, True),
        ("unauthorized-apply", 502, False),
        ("server-hangs", 504, False),
    ],
)
async def test_a_rejected_create_maps_to_its_status_and_leaves_nothing(
    client: Client, cluster: FakeCluster, case: str, status: int, retry: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.answer_next("apply", case)
    response = await client.post(URL, json={"sandbox_id": "a"}, headers={"X-Request-ID": "req-1"})
    assert response.status == status
    assert_is_json(response)
    detail = (await response.json())["detail"]
    assert isinstance(detail, str)
    assert "kubectl" not in detail
    assert "\n" not in detail
    assert ("Retry-After" in response.headers) == retry
    assert cluster.objects == {}
    # The log has the full stderr.
    assert recorded(case).stderr.strip().splitlines()[-1] in caplog.text


@pytest.mark.parametrize(
    ("case", "status"),
    [("get-forbidden", 502), ("unauthorized", 502), ("unknown-authority", 503), ("server-hangs", 504)],
)
async def test_a_rejected_read_or_delete_maps_to_its_status(
    client: Client, cluster: FakeCluster, case: str, status: int
) -> None:
    await create(client)
    cluster.answer_next("get", case, times=2)
    cluster.answer_next("delete", case)
    for method, path in (("GET", f"{URL}/a"), ("GET", URL), ("DELETE", f"{URL}/a")):
        response = await client.request(method, path)
        assert response.status == status
        assert_is_json(response)


async def test_a_refused_connection_is_retried(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("get", "refused")
    cluster.answer_next("apply", "refused-apply")
    await create(client)


async def test_an_unreachable_cluster_is_503_after_the_retries(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("get", "refused", times=5)
    response = await client.post(URL, json={"sandbox_id": "a"})
    assert response.status == 503
    assert response.headers["Retry-After"]


async def test_a_rejection_caused_by_the_caller_is_422_with_its_field(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("apply", "apply-label-too-long")
    response = await client.post(URL, json={"sandbox_id": "a"})
    assert response.status == 422
    (entry,) = (await response.json())["detail"]
    assert entry == {
        "type": "value_error",
        "loc": ["body", "sandbox_id"],
        "msg": "The cluster refuses the sandbox's Pod at metadata.labels",
        "input": "a",
    }


async def test_a_rejection_caused_by_the_operator_is_502(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("apply", "apply-hostpath-backstep")
    response = await client.post(URL, json={"sandbox_id": "a"})
    assert response.status == 502


async def test_the_first_create_creates_the_namespace(client: Client, cluster: FakeCluster) -> None:
    cluster.namespaces.clear()
    cluster.answer_next("apply", "apply-missing-namespace")
    await create(client)
    assert cluster.namespaces == {"deer-flow"}


async def test_a_missing_service_account_is_retried(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("apply", "apply-right-after-namespace", times=2)
    await create(client)


async def test_a_create_continues_after_the_caller_disconnects(client: Client, cluster: FakeCluster) -> None:
    hold = cluster.hold_next("apply")
    request = asyncio.create_task(client.post(URL, json={"sandbox_id": "a"}))
    while not cluster.verbs()["apply"]:
        await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    hold.set()
    while (await client.get(f"{URL}/a")).status != 200:
        await asyncio.sleep(0.01)


@pytest.mark.deadlines(create=0.2)
async def test_a_create_timeout_is_504_and_leaves_nothing(client: Client, cluster: FakeCluster) -> None:
    cluster.hold_next("apply")
    response = await client.post(URL, json={"sandbox_id": "a"})
    assert response.status == 504
    assert cluster.objects == {}
    assert (await client.get(f"{URL}/a")).status == 404


@pytest.mark.deadlines(create=0.2)
async def test_a_create_timeout_after_the_apply_is_200(client: Client, cluster: FakeCluster) -> None:
    cluster.hang_after_next("apply")
    answer = await create(client)
    assert answer["sandbox_id"] == "a"
    assert await (await client.get(f"{URL}/a")).json() == answer


@pytest.mark.deadlines(read=0.1, delete=0.1)
@pytest.mark.parametrize(("method", "path"), [("GET", f"{URL}/a"), ("GET", URL), ("DELETE", f"{URL}/a")])
async def test_a_read_or_delete_timeout_is_504(client: Client, cluster: FakeCluster, method: str, path: str) -> None:
    cluster.hold_next("get")
    cluster.hold_next("delete")
    assert (await client.request(method, path)).status == 504


async def test_a_full_queue_is_503_at_once(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(KUBECTL_MAX_PROCESSES=1, KUBECTL_MAX_WAITING=0)
    held = cluster.hold_next("apply")
    first = asyncio.create_task(client.post(URL, json={"sandbox_id": "a"}))
    while not cluster.verbs()["apply"]:
        await asyncio.sleep(0.01)
    busy = await client.get(URL)
    assert busy.status == 503
    assert busy.headers["Retry-After"]
    held.set()
    assert (await first).status == 200


async def test_concurrent_creates_of_one_id_apply_once(client: Client, cluster: FakeCluster) -> None:
    answers = await asyncio.gather(*(create(client, "a") for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert cluster.verbs()["apply"] == 1
