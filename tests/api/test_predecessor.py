"""What the predecessor accepts beyond the contract: encodings of a body, and paths with a slash at the end."""

from __future__ import annotations

import pytest

from tests.api.conftest import URL, Client


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_json_is_parsed_in_any_encoding_of_unicode(client: Client, encoding: str) -> None:
    response = await client.post(URL, data='{"sandbox_id": "a"}'.encode(encoding))
    assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health/", 200),
        ("GET", "/metrics/", 200),
        ("GET", "/api/capabilities/", 200),
        ("GET", "/api/sandboxes/", 200),
        ("POST", "/api/sandboxes/", 200),
        ("GET", "/api/sandboxes/a/", 404),
        ("POST", "/api/sandboxes/a/touch/", 404),
        ("DELETE", "/api/sandboxes/a/", 200),
        ("PUT", "/api/sandboxes/", 405),
    ],
)
async def test_a_slash_at_the_end_of_a_path_changes_nothing(
    client: Client, method: str, path: str, status: int
) -> None:
    body = {"sandbox_id": "a"} if method == "POST" else None
    response = await client.request(method, path, json=body)
    assert response.status == status
    assert f'route="{path}"' not in await (await client.get("/metrics")).text()
