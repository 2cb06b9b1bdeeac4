"""Whatever comes in: an answer in JSON, never a 500, and what is refused never reaches the cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ALMOST = st.fixed_dictionaries(
    {"sandbox_id": st.from_regex(r"[a-z0-9-]{0,3}") | JSON},
    optional={
        "thread_id": st.from_regex(r"\A[A-Za-z0-9_-]{1,4}\Z") | JSON,
        "user_id": st.from_regex(r"\A[A-Za-z0-9_-]{1,4}\Z") | JSON,
        "extra_mounts": st.lists(st.fixed_dictionaries({"host_path": JSON, "container_path": JSON}), max_size=2) | JSON,
        "include_legacy_skills": JSON,
        "provision_lark_cli_broker": JSON,
    },
)
BODIES = st.binary(max_size=200) | (JSON | ALMOST).map(lambda value: json.dumps(value).encode())
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60)

SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def checked(client: Client, cluster: FakeCluster, method: str, path: str, **options: Any) -> None:
    cluster.calls.clear()
    response = await client.request(method, path, **options)
    assert response.status != 500
    assert response.content_type == "application/json"
    answer = json.loads(await response.text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    if response.status >= 400:
        assert answer["detail"]
    if response.status in {400, 404, 405, 413, 422} and answer.get("status") != "NotFound":
        assert cluster.calls == []


@SETTINGS
@given(body=BODIES)
async def test_any_body(client: Client, cluster: FakeCluster, body: bytes) -> None:
    await checked(client, cluster, "POST", URL, data=body)


@SETTINGS
@given(name=PATHS, method=st.sampled_from(["GET", "DELETE", "POST", "PUT"]))
async def test_any_id(client: Client, cluster: FakeCluster, name: str, method: str) -> None:
    await checked(client, cluster, method, f"{URL}/{name}")
