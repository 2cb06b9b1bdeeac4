"""Generated requests: every response is JSON and none is 500; rejected requests make no kubectl call."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sandboxes.models.requests import OPTIONAL_FIELDS
from tests.api.conftest import URL, Client, MakeClient
from tests.api.examples import SETTINGS
from tests.fakes import FakeCluster

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TEXTS = st.text(max_size=4)
QUANTITIES = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage"]) | TEXTS,
    st.from_regex(r"\A[0-9.]{1,3}[eEinumkKMGTP]{0,2}\Z") | JSON,
    max_size=2,
)
METADATA = st.dictionaries(st.from_regex(r"\A[a-z./-]{1,3}\Z") | TEXTS, TEXTS | JSON, max_size=2)
OPTIONS = st.fixed_dictionaries(
    {"sandbox_id": st.sampled_from(["a", "b"])},
    optional={
        "thread_id": st.sampled_from(["a", "b"]),
        "template": st.sampled_from(["default", "none"]) | JSON,
        "image": TEXTS | JSON,
        "env": st.dictionaries(st.from_regex(r"\A[A-Z0-9._=-]{0,2}\Z"), TEXTS, max_size=2) | METADATA | JSON,
        "resources": st.fixed_dictionaries({}, optional={"requests": QUANTITIES | JSON, "limits": QUANTITIES | JSON})
        | JSON,
        "labels": METADATA | JSON,
        "annotations": METADATA | JSON,
        "ttl_seconds": st.integers(-1, 2**40) | JSON,
        "idle_timeout_seconds": st.integers(-1, 2**40) | JSON,
        # Only values without a wait.
        "wait_seconds": st.sampled_from([0, None, -1, "x", "0", [], {}]),
    },
)
NEARLY_VALID = st.fixed_dictionaries(
    {"sandbox_id": st.from_regex(r"[a-z0-9-]{0,3}") | JSON},
    optional={
        "thread_id": st.from_regex(r"\A[A-Za-z0-9_-]{1,4}\Z") | JSON,
        "user_id": st.from_regex(r"\A[A-Za-z0-9_-]{1,4}\Z") | JSON,
        "extra_mounts": st.lists(st.fixed_dictionaries({"host_path": JSON, "container_path": JSON}), max_size=2) | JSON,
        "include_legacy_skills": JSON,
        "provision_lark_cli_broker": JSON,
    },
)
BODIES = st.binary(max_size=200) | (JSON | NEARLY_VALID).map(lambda value: json.dumps(value).encode())
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60)


@pytest.fixture
async def open_client(make_client: MakeClient) -> Client:
    """Return a client of a service that allows every field."""
    return await make_client(ALLOW_FIELDS=",".join(OPTIONAL_FIELDS))


@pytest.fixture
async def strict_client(make_client: MakeClient) -> Client:
    """Return a client of a service that allows only the contract's own fields."""
    return await make_client(ALLOW_FIELDS="none")


async def checked(
    client: Client, cluster: FakeCluster, method: str, path: str, **options: Any
) -> aiohttp.ClientResponse:
    cluster.calls.clear()
    response = await client.request(method, path, **options)
    assert response.status != 500
    assert response.content_type == "application/json"
    answer = json.loads(await response.text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    if response.status >= 400:
        assert answer["detail"]
    if response.status in {400, 403, 404, 405, 413, 422} and answer.get("status") != "NotFound":
        assert cluster.calls == []
    return response


@SETTINGS
@given(body=BODIES)
async def test_any_body_gets_a_json_response_other_than_500(client: Client, cluster: FakeCluster, body: bytes) -> None:
    await checked(client, cluster, "POST", URL, data=body)


@SETTINGS
@given(body=OPTIONS)
async def test_any_options_get_json_and_rejected_ones_change_nothing(
    open_client: Client, cluster: FakeCluster, body: dict[str, Any]
) -> None:
    before = {key: dict(obj["metadata"]) for key, obj in cluster.objects.items()}
    response = await checked(open_client, cluster, "POST", URL, data=json.dumps(body).encode())
    event(f"status {response.status}")
    if response.status >= 400:
        assert {key: obj["metadata"] for key, obj in cluster.objects.items()} == before
    elif before:
        await checked(open_client, cluster, "DELETE", f"{URL}/{body['sandbox_id']}")


@SETTINGS
@given(body=OPTIONS)
async def test_fields_that_are_not_allowed_are_rejected_without_a_kubectl_call(
    strict_client: Client, cluster: FakeCluster, body: dict[str, Any]
) -> None:
    response = await checked(strict_client, cluster, "POST", URL, data=json.dumps(body).encode())
    if any(body.get(name) is not None for name in OPTIONAL_FIELDS):
        # NaN and Infinity are not valid JSON, so the body is rejected first.
        assert response.status == 403 or (await response.json())["detail"][0]["type"] == "json_invalid"
        assert cluster.calls == []


@SETTINGS
@given(name=PATHS, method=st.sampled_from(["GET", "DELETE", "POST", "PUT"]))
async def test_any_id_in_a_path_gets_a_json_response_other_than_500(
    client: Client, cluster: FakeCluster, name: str, method: str
) -> None:
    await checked(client, cluster, method, f"{URL}/{name}")
