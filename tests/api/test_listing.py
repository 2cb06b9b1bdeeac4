"""The query parameters of the list, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.client import create
from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster


async def listed(client: Client, query: str) -> dict[str, Any]:
    response = await client.get(f"{URL}?{query}")
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def ids(client: Client, query: str) -> list[str]:
    return [one["sandbox_id"] for one in (await listed(client, query))["sandboxes"]]


async def test_the_list_filters_by_owner_status_and_readiness(client: Client, cluster: FakeCluster) -> None:
    await create(client, "a", thread_id="t1", user_id="u1")
    await create(client, "b", thread_id="t2", user_id="u1")
    cluster.run_pod("b")
    assert await ids(client, "thread_id=t1") == ["a"]
    assert await ids(client, "user_id=u1") == ["a", "b"]
    assert await ids(client, "status=Running") == ["b"]
    assert await ids(client, "status=Running&thread_id=t1") == []
    assert await ids(client, "ready=false") == ["a", "b"]
    assert await ids(client, "ready=true") == []


async def test_the_list_filters_by_pod_labels(client: Client, cluster: FakeCluster) -> None:
    for sandbox_id in "ab":
        await create(client, sandbox_id)
        pod = cluster.pod(sandbox_id)
        assert pod is not None
        pod["metadata"]["labels"] |= {"team": "red", "name": sandbox_id}
    await create(client, "c")
    assert await ids(client, "label=team") == ["a", "b"]
    assert await ids(client, "label=team%3Dred&label=name=b") == ["b"]
    assert await ids(client, "label=team=blue") == []


async def test_pages_are_sorted_by_id(client: Client) -> None:
    for sandbox_id in ("b", "d", "a", "c", "e"):
        await create(client, sandbox_id)
    first = await listed(client, "limit=2")
    assert [one["sandbox_id"] for one in first["sandboxes"]] == ["a", "b"]
    assert first["count"] == 2
    await client.delete(f"{URL}/b")
    await create(client, "aa")
    second = await listed(client, f"limit=2&cursor={first['next_cursor']}")
    assert [one["sandbox_id"] for one in second["sandboxes"]] == ["c", "d"]
    third = await listed(client, f"limit=2&cursor={second['next_cursor']}")
    assert [one["sandbox_id"] for one in third["sandboxes"]] == ["e"]
    assert third["next_cursor"] is None


async def test_unknown_query_parameters_are_ignored(client: Client) -> None:
    await create(client)
    plain = await (await client.get(URL)).json()
    assert await listed(client, "colour=red&colour=blue") == plain
    assert plain.keys() == {"sandboxes", "count"}


@pytest.mark.parametrize(
    "query", ["status=x", "ready=x", "thread_id=", "user_id=%20", "template=", "label=%3D", "limit=0", "cursor=x"]
)
async def test_an_invalid_query_parameter_is_422_without_a_kubectl_call(
    client: Client, cluster: FakeCluster, query: str
) -> None:
    response = await client.get(f"{URL}?{query}")
    assert response.status == 422
    [entry] = (await response.json())["detail"]
    assert entry["loc"] == ["query", query.partition("=")[0]]
    assert entry.keys() == {"type", "loc", "msg", "input"}
    assert cluster.calls == []
