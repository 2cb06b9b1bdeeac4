"""Requests and assertions that tests of the REST API share."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import URL, Client


async def create(client: Client, sandbox_id: str = "a", **fields: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"sandbox_id": sandbox_id, **fields})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


def assert_is_json(response: Any) -> None:
    assert response.content_type == "application/json"
    assert response.headers["X-Request-ID"]
