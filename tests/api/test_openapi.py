"""The OpenAPI document and the docs page, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from http import HTTPStatus

import pytest
from aiohttp import hdrs

from sandboxes.api.middlewares import API_KEY_HEADER, REQUEST_ID_HEADER
from sandboxes.api.openapi.document import document
from sandboxes.api.openapi.operations import OPERATIONS
from tests.api.conftest import URL, Client, MakeClient
from tests.conftest import ROOT

OPTIONS = (ROOT / "docs" / "reference" / "create-options.md").read_text(encoding="utf-8")
PAGES = ["/openapi.json", "/docs"]


async def test_the_document_is_served_as_json(client: Client) -> None:
    response = await client.get("/openapi.json")
    assert response.status == 200
    assert response.content_type == "application/json"
    # Converts tuples to lists.
    assert await response.json() == json.loads(json.dumps(document()))


async def test_the_documented_routes_are_the_registered_routes(client: Client) -> None:
    routes = {
        # The document describes HEAD with GET.
        (route.method, route.resource.canonical)
        for route in client.app.router.routes()
        if route.method != hdrs.METH_HEAD
        and route.resource is not None
        # Each is also served with a slash at its end.
        and not route.resource.canonical.endswith("/")
    }
    assert routes == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_the_document_names_the_api_key_and_request_id_headers(client: Client) -> None:
    components = (await (await client.get("/openapi.json")).json())["components"]
    assert components["securitySchemes"]["ApiKey"]["name"] == API_KEY_HEADER
    assert REQUEST_ID_HEADER in components["headers"]


@pytest.mark.parametrize("path", PAGES)
async def test_docs_pages_need_no_key(make_client: MakeClient, path: str) -> None:
    client = await make_client(PROVISIONER_API_KEY="secret")
    response = await client.get(path)
    assert response.status == 200
    assert "secret" not in await response.text()


@pytest.mark.parametrize("path", PAGES)
async def test_docs_pages_do_not_depend_on_settings(make_client: MakeClient, path: str) -> None:
    plain = await make_client()
    other = await make_client(PROVISIONER_API_KEY="key", SANDBOX_IMAGE="private:1", ALLOW_FIELDS="none")
    assert await (await plain.get(path)).read() == await (await other.get(path)).read()


@pytest.mark.parametrize("path", PAGES)
async def test_a_matching_etag_is_304(client: Client, path: str) -> None:
    first = await client.get(path)
    for known in (first.headers["ETag"], f'"other", {first.headers["ETag"]}', "*", f"W/{first.headers['ETag']}"):
        again = await client.get(path, headers={"If-None-Match": known})
        assert again.status == HTTPStatus.NOT_MODIFIED
        assert await again.read() == b""
        assert again.headers["ETag"] == first.headers["ETag"]
    other = await client.get(path, headers={"If-None-Match": '"other"'})
    assert other.status == 200
    assert await other.read() == await first.read()


@pytest.mark.parametrize("path", PAGES)
async def test_head_has_the_headers_of_get_and_no_body(client: Client, path: str) -> None:
    whole, head = await client.get(path), await client.head(path)
    assert head.status == 200
    assert await head.read() == b""
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


async def test_the_content_security_policy_allows_only_the_inline_style(client: Client) -> None:
    response = await client.get("/docs")
    assert response.content_type == "text/html"
    assert response.charset == "utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", await response.text(), re.DOTALL)
    assert style is not None
    # Browsers hash the content of the element.
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES)
async def test_docs_pages_reject_post(client: Client, path: str) -> None:
    response = await client.post(path, data=b"{}")
    assert response.status == 405
    assert await response.json() == {"detail": "Method Not Allowed"}
    assert response.headers["Allow"] == "GET,HEAD"


async def test_a_renewal_ignores_fields_of_a_create(make_client: MakeClient) -> None:
    client = await make_client(ALLOW_FIELDS="ttl_seconds")
    assert (await client.post(URL, json={"sandbox_id": "a"})).status == 200
    renewed = await client.post(f"{URL}/a/renew", json={"ttl_seconds": 60, "image": "other:1"})
    assert renewed.status == 200
    refused = await client.post(URL, json={"sandbox_id": "b", "image": "other:1"})
    assert refused.status == 403


async def published(client: Client, pattern: str, *path: str) -> int:
    """Return the number that the pattern's group finds in the description at `path` of the served document."""
    value = await (await client.get("/openapi.json")).json()
    for key in path:
        value = value[key]
    found = re.search(pattern, value["description"])
    assert found is not None, value["description"]
    return int(found[1])


@pytest.mark.parametrize("field", ["env", "annotations"])
async def test_env_and_annotations_over_the_documented_size_are_422(make_client: MakeClient, field: str) -> None:
    client = await make_client(ALLOW_FIELDS=field)
    path = ("components", "schemas", "CreateRequest", "properties", field)
    most = await published(client, r"at most \d+ KiB \((\d+) bytes\) of JSON", *path)
    room = most - len(json.dumps(["A", ""]))
    assert (await client.post(URL, json={"sandbox_id": "a", field: {"A": "x" * room}})).status == 200
    refused = await client.post(URL, json={"sandbox_id": "b", field: {"A": "x" * (room + 1)}})
    assert refused.status == 422
    (problem,) = (await refused.json())["detail"]
    assert str(most) in problem["msg"]
    # The reference documents the same limit.
    row = re.search(rf"^\| `{field}` \|.*$", OPTIONS, re.MULTILINE)
    assert row is not None
    assert f"at most {most // 1024} KiB ({most} bytes) of JSON" in row[0]


async def test_an_image_over_the_documented_length_is_422(make_client: MakeClient) -> None:
    client = await make_client(ALLOW_FIELDS="image")
    path = ("components", "schemas", "CreateRequest", "properties", "image")
    most = await published(client, r"at most (\d+) characters", *path)
    assert (await client.post(URL, json={"sandbox_id": "a", "image": "x" * most})).status == 200
    assert (await client.post(URL, json={"sandbox_id": "b", "image": "x" * (most + 1)})).status == 422


async def test_a_body_over_the_documented_size_is_413(client: Client) -> None:
    most = await published(client, r"larger than (\d+) MiB", "components", "responses", "ContentTooLarge") * 2**20
    body = b'{"sandbox_id": "a"}'
    assert (await client.post(URL, data=io.BytesIO(body.ljust(most)))).status == 200
    assert (await client.post(URL, data=io.BytesIO(body.ljust(most + 1)))).status == 413
