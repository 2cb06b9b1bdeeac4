"""The REST contract, over HTTP."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.client import assert_is_json, create
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster


async def test_health_makes_no_kubectl_call(client: Client, cluster: FakeCluster) -> None:
    response = await client.get("/health")
    assert (response.status, await response.json()) == (200, {"status": "ok"})
    assert_is_json(response)
    assert cluster.calls == []


async def test_capabilities_report_lark_as_unavailable(client: Client, cluster: FakeCluster) -> None:
    response = await client.get("/api/capabilities")
    assert response.status == 200
    answer = await response.json()
    assert answer["lark_cli_init_image"] is False
    assert answer["lark_cli_broker_image"] is False
    assert answer["mount_contract_version"] == 2
    assert cluster.calls == []


async def test_create_get_list_delete(client: Client, cluster: FakeCluster) -> None:
    made = await create(client)
    assert made["sandbox_id"] == "a"
    assert made["sandbox_url"] == "http://host.docker.internal:30000"
    assert made["status"] == "Pending"

    cluster.run_pod("a")
    got = await client.get(f"{URL}/a")
    assert (got.status, await got.json()) == (200, {**made, "status": "Running"})

    listed = await client.get(URL)
    assert (listed.status, await listed.json()) == (200, {"sandboxes": [{**made, "status": "Running"}], "count": 1})

    deleted = await client.delete(f"{URL}/a")
    assert (deleted.status, await deleted.json()) == (200, {"ok": True, "sandbox_id": "a"})
    assert cluster.objects == {}

    gone = await client.get(f"{URL}/a")
    assert (gone.status, await gone.json()) == (404, {"detail": "Sandbox 'a' not found", "status": "NotFound"})
    for response in (got, listed, deleted, gone):
        assert_is_json(response)


async def test_an_empty_list_has_count_0(client: Client) -> None:
    response = await client.get(URL)
    assert (response.status, await response.json()) == (200, {"sandboxes": [], "count": 0})


async def test_a_repeated_create_returns_the_same_sandbox_without_an_apply(
    client: Client, cluster: FakeCluster
) -> None:
    first = await create(client, thread_id="t")
    pod = cluster.pod("a")
    assert await create(client, thread_id="t") == first
    assert cluster.pod("a") == pod
    assert cluster.verbs()["apply"] == 1


async def test_deleting_a_missing_sandbox_is_200(client: Client) -> None:
    response = await client.delete(f"{URL}/none")
    assert (response.status, await response.json()) == (200, {"ok": True, "sandbox_id": "none"})


IMPOSSIBLE_IDS = ["A", "a_b", "-a", "a-", "a" * 52, "--all", "a b", "ä", "a%00", "a%0A", "..%2Fx", "{a}", "*"]


@pytest.mark.parametrize("sandbox_id", IMPOSSIBLE_IDS)
async def test_an_invalid_id_is_404_on_get_and_200_on_delete(
    client: Client, cluster: FakeCluster, sandbox_id: str
) -> None:
    got = await client.get(f"{URL}/{sandbox_id}")
    assert got.status == 404
    assert (await got.json())["status"] == "NotFound"
    deleted = await client.delete(f"{URL}/{sandbox_id}")
    assert deleted.status == 200
    assert (await deleted.json())["ok"] is True
    assert cluster.calls == []


async def test_thread_and_user_are_stored_as_annotations(client: Client, cluster: FakeCluster) -> None:
    await create(client, "a", thread_id="T_1-x", user_id="U_1-x")
    await create(client, "b", thread_id=None)
    await create(client, "c")

    def owner(sandbox_id: str) -> tuple[str, str]:
        pod = cluster.pod(sandbox_id)
        assert pod is not None
        annotations = pod["metadata"]["annotations"]
        return annotations["provisioner/thread-id"], annotations["provisioner/user-id"]

    assert owner("a") == ("T_1-x", "U_1-x")
    assert owner("b") == ("b", "default")
    assert owner("c") == ("c", "default")


async def test_legacy_and_unknown_fields_are_ignored(client: Client, cluster: FakeCluster) -> None:
    await create(
        client,
        include_legacy_skills=True,
        provision_lark_cli_runtime=True,
        provision_lark_cli_broker=True,
        a_field_of_the_future={"x": [1]},
    )
    with_them = cluster.pod("a")
    await client.delete(f"{URL}/a")
    await create(client)
    without = cluster.pod("a")
    assert with_them is not None
    assert without is not None
    assert with_them["spec"] == without["spec"]


@pytest.mark.parametrize("id_length", [1, 51])
async def test_ids_of_up_to_51_characters_are_accepted(client: Client, cluster: FakeCluster, id_length: int) -> None:
    sandbox_id = "x" * id_length
    await create(client, sandbox_id)
    assert cluster.pod(sandbox_id)
    assert cluster.service(sandbox_id)


@pytest.mark.parametrize(
    ("fields", "location", "kind"),
    [
        ({}, ["body", "sandbox_id"], "missing"),
        ({"sandbox_id": None}, ["body", "sandbox_id"], "string_type"),
        ({"sandbox_id": 5}, ["body", "sandbox_id"], "string_type"),
        ({"sandbox_id": ""}, ["body", "sandbox_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "../x"}, ["body", "sandbox_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "Upper"}, ["body", "sandbox_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a" * 52}, ["body", "sandbox_id"], "string_too_long"),
        ({"sandbox_id": "abc\n"}, ["body", "sandbox_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "--all"}, ["body", "sandbox_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "thread_id": ""}, ["body", "thread_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "thread_id": "t" * 65}, ["body", "thread_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "thread_id": "abc\n"}, ["body", "thread_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "thread_id": "../t"}, ["body", "thread_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "thread_id": 1}, ["body", "thread_id"], "string_type"),
        ({"sandbox_id": "a", "user_id": None}, ["body", "user_id"], "string_type"),
        ({"sandbox_id": "a", "user_id": "u" * 4097}, ["body", "user_id"], "string_too_long"),
        ({"sandbox_id": "a", "user_id": ""}, ["body", "user_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "user_id": "u\n"}, ["body", "user_id"], "string_pattern_mismatch"),
        ({"sandbox_id": "a", "extra_mounts": None}, ["body", "extra_mounts"], "list_type"),
        ({"sandbox_id": "a", "extra_mounts": ["x"]}, ["body", "extra_mounts", 0], "model_type"),
        ({"sandbox_id": "a", "extra_mounts": [{}]}, ["body", "extra_mounts", 0, "host_path"], "missing"),
        ({"sandbox_id": "a", "include_legacy_skills": "perhaps"}, ["body", "include_legacy_skills"], "bool_parsing"),
        ({"sandbox_id": "a", "provision_lark_cli_broker": {}}, ["body", "provision_lark_cli_broker"], "bool_type"),
    ],
)
async def test_an_invalid_field_is_422_without_a_kubectl_call(
    client: Client, cluster: FakeCluster, fields: dict[str, Any], location: list[Any], kind: str
) -> None:
    response = await client.post(URL, json=fields)
    assert response.status == 422
    assert_is_json(response)
    first = (await response.json())["detail"][0]
    assert set(first) == {"type", "loc", "msg", "input"}
    assert (first["loc"], first["type"]) == (location, kind)
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "missing"),
        (b"{", "json_invalid"),
        (b"sandbox_id=a", "json_invalid"),
        (b'{"sandbox_id": NaN}', "json_invalid"),
        (b'{"sandbox_id": "a", "x": Infinity}', "json_invalid"),
        (b"[" * 20_000, "json_invalid"),
        (b'{"a":' * 20_000, "json_invalid"),
        (b'{"sandbox_id": "\xff\xfe"}', "json_invalid"),
        ('{"sandbox_id": "a"}'.encode("utf-16")[:-1], "json_invalid"),
        ("\ufeff\ufeff{}".encode(), "json_invalid"),
        (b"\xef\xbb\xbf", "json_invalid"),
        (b'{"sandbox_id": "\\ud800"}', "json_invalid"),
        (b"null", "model_type"),
        (b"[]", "model_type"),
        (b'"a"', "model_type"),
        (b"1e999", "model_type"),
        (b'{"sandbox_id": 1e999}', "string_type"),
    ],
)
async def test_an_invalid_body_is_422(client: Client, cluster: FakeCluster, body: bytes, kind: str) -> None:
    response = await client.post(URL, data=body, headers={"Content-Type": "application/json"})
    assert response.status == 422
    assert_is_json(response)
    assert (await response.json())["detail"][0]["type"] == kind
    assert cluster.calls == []


async def test_json_is_parsed_with_any_content_type(client: Client) -> None:
    response = await client.post(URL, data=b'{"sandbox_id": "a"}', headers={"Content-Type": "text/plain"})
    assert response.status == 200


async def test_a_body_of_3_mb_is_413(client: Client, cluster: FakeCluster) -> None:
    response = await client.post(URL, data=io.BytesIO(b" " * 3_000_000))
    assert (response.status, await response.json()) == (413, {"detail": "The request's body is larger than 1 MiB"})
    assert_is_json(response)
    assert cluster.calls == []


async def test_a_body_that_does_not_match_its_content_encoding_is_400(client: Client, cluster: FakeCluster) -> None:
    response = await client.post(URL, data=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert response.status == 400
    assert_is_json(response)
    assert cluster.calls == []


@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/api/none", "/api/sandboxes//", "/api/sandboxes/a/b", "/x"])
async def test_an_unknown_route_is_404_in_json(client: Client, path: str) -> None:
    response = await client.get(path)
    assert (response.status, await response.json()) == (404, {"detail": "Not Found"})
    assert_is_json(response)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", URL, {"GET", "HEAD", "POST"}),
        ("POST", f"{URL}/a", {"DELETE", "GET", "HEAD"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("PATCH", "/api/capabilities", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_in_json(client: Client, method: str, path: str, allowed: set[str]) -> None:
    response = await client.request(method, path)
    assert (response.status, await response.json()) == (405, {"detail": "Method Not Allowed"})
    assert set(response.headers["Allow"].split(",")) == allowed
    assert_is_json(response)


async def test_an_unexpected_exception_is_500_without_its_message(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise RuntimeError("t0ps3cret")

    cluster.do_before_next("get", bug)
    response = await client.get(f"{URL}/a")
    assert (response.status, await response.json()) == (500, {"detail": "Internal error"})
    assert_is_json(response)
    assert "t0ps3cret" in caplog.text


async def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced(client: Client) -> None:
    given = await client.get("/health", headers={"X-Request-ID": "abc.DEF-1:2_3"})
    assert given.headers["X-Request-ID"] == "abc.DEF-1:2_3"
    for bad in ("", "a b", "x" * 129, "ä", '"><script>'):
        made = await client.get("/health", headers={"X-Request-ID": bad})
        assert made.headers["X-Request-ID"] != bad
        assert len(made.headers["X-Request-ID"]) == 32


async def test_requests_on_one_connection_have_different_ids(client: Client) -> None:
    first, second = [(await client.get("/none")).headers["X-Request-ID"] for _ in range(2)]
    assert first != second


async def test_without_a_key_set_there_is_no_authentication(client: Client) -> None:
    assert (await client.get(URL)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", URL), ("POST", URL), ("GET", f"{URL}/a"), ("DELETE", f"{URL}/a"), ("GET", "/api/none"), ("PUT", URL),
     ("GET", "/api/capabilities"), ("GET", "/api/reconciliation/sandboxes/a"), ("GET", "/%61pi/sandboxes"),
     ("GET", "/x/../api/sandboxes")],
)  # fmt: skip
async def test_with_a_key_set_api_requests_without_it_are_401(
    make_client: MakeClient, cluster: FakeCluster, method: str, path: str
) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": "k3"}, {"X-API-Key": "k3y\u00e9"}, {"X-API-Key": ""}):
        response = await client.request(method, path, headers=headers)
        assert response.status == 401
        assert isinstance((await response.json())["detail"], str)
        assert_is_json(response)
    assert cluster.calls == []


async def test_the_key_is_accepted_and_health_needs_none(make_client: MakeClient) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    assert (await client.get("/health")).status == 200
    assert (await client.get(URL, headers={"X-API-Key": "k3y"})).status == 200
    assert (await client.get(URL, headers={"x-api-key": "k3y"})).status == 200


async def test_a_cluster_ip_service_has_a_cluster_local_url(make_client: MakeClient) -> None:
    client = await make_client(SANDBOX_SERVICE_TYPE="ClusterIP")
    answer = await create(client)
    assert answer["sandbox_url"] == "http://sandbox-a-svc.deer-flow.svc.cluster.local:8080"


async def test_settings_apply_to_the_created_sandbox(make_client: MakeClient, cluster: FakeCluster) -> None:
    cluster.namespaces.add("other")
    client = await make_client(K8S_NAMESPACE="other", NODE_HOST="10.0.0.9", SANDBOX_IMAGE="x/y:1")
    answer = await create(client)
    assert answer["sandbox_url"].startswith("http://10.0.0.9:")
    pod = cluster.pod("a", "other")
    assert pod is not None
    assert pod["spec"]["containers"][0]["image"] == "x/y:1"
    assert (await (await client.get(URL)).json())["count"] == 1


async def test_extra_mounts_become_host_path_volumes(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(DEER_FLOW_HOST_BASE_DIR="/srv")
    await create(client, extra_mounts=[{"host_path": "/srv/a", "container_path": "/mnt/acp-workspace"}])
    pod = cluster.pod("a")
    assert pod is not None
    assert {"name": "extra-0", "hostPath": {"path": "/srv/a", "type": "DirectoryOrCreate"}} in pod["spec"]["volumes"]


@pytest.mark.parametrize(
    "mounts",
    [
        [{"host_path": "/etc", "container_path": "/mnt/acp-workspace"}],
        [{"host_path": "/srv/../etc", "container_path": "/mnt/acp-workspace"}],
        [{"host_path": "/srv/a", "container_path": "/etc"}],
        [{"host_path": "/srv/a", "container_path": "/mnt/acp-workspace"}] * 11,
    ],
)
async def test_invalid_extra_mounts_are_400(make_client: MakeClient, cluster: FakeCluster, mounts: list[Any]) -> None:
    client = await make_client(DEER_FLOW_HOST_BASE_DIR="/srv")
    response = await client.post(URL, json={"sandbox_id": "a", "extra_mounts": mounts})
    assert response.status == 400
    assert isinstance((await response.json())["detail"], str)
    assert cluster.calls == []


async def test_extra_mounts_without_a_host_base_dir_are_400(client: Client, cluster: FakeCluster) -> None:
    mounts = [{"host_path": "/srv/a", "container_path": "/mnt/acp-workspace"}]
    response = await client.post(URL, json={"sandbox_id": "a", "extra_mounts": mounts})
    assert response.status == 400
    assert cluster.calls == []


async def test_a_line_break_in_a_path_does_not_split_the_access_log_line(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="aiohttp.access"):
        await client.get(f"{URL}/a%0AINFO%20forged")
    assert all("\n" not in record.getMessage() for record in caplog.records if record.name == "aiohttp.access")


async def test_too_many_extra_mounts_get_one_short_error(client: Client, cluster: FakeCluster) -> None:
    body = b'{"sandbox_id":"a","extra_mounts":[' + b",".join([b"0"] * 500_000) + b"]}"
    response = await client.post(URL, data=io.BytesIO(body))
    assert response.status == 400
    assert await response.json() == {"detail": "extra_mounts may have at most 10 entries"}
    assert cluster.calls == []


@pytest.mark.deadlines(body=0.1)
async def test_an_incomplete_body_is_408(client: Client) -> None:

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await client.post(URL, data=never())
    assert (response.status, await response.json()) == (408, {"detail": "Request Timeout"})
