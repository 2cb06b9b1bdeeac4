"""Requests without an API key, over HTTP: which peers and which browsers are rejected."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.api.client import assert_is_json, create
from tests.api.conftest import URL, Client, MakeClient
from tests.api.examples import SETTINGS
from tests.fakes import FakeCluster
from tests.metrics import requests, scrape, value

EVIL = "http://evil.example"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
BELOW_API = [URL, f"{URL}/a", f"{URL}/a/touch", "/api/capabilities", "/api/events", "/api/none", "/api/", "/%61pi/none"]
OPEN = ["/health", "/livez", "/readyz", "/docs", "/openapi.json"]


# Peers. Local and compose callers work without a key.


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        pytest.param("127.0.0.1", "localhost:8002", id="docker exec, curl"),
        pytest.param("::1", "localhost:8002", id="docker exec, curl by IPv6"),
        pytest.param("172.18.0.5", "provisioner:8002", id="a backend in the same compose network"),
        pytest.param("172.18.0.5", "deer-flow-provisioner:8002", id="by the container's name"),
        pytest.param("fd00:18::5", "provisioner:8002", id="in a compose network of IPv6"),
        pytest.param("172.18.0.1", "host.docker.internal:8002", id="by a published port, from a container"),
        pytest.param("172.18.0.1", "localhost:8002", id="by a published port, from the host"),
        pytest.param("192.168.65.1", "host.docker.internal:8002", id="through Docker Desktop"),
        pytest.param("::ffff:172.18.0.5", "provisioner:8002", id="on a listener of both families"),
    ],
)
async def test_local_and_compose_callers_need_no_key(
    make_client: MakeClient, cluster: FakeCluster, peer: str, host: str
) -> None:
    client = await make_client(peer=peer)
    client.session.headers["Host"] = host
    await create(client)
    assert cluster.pod("a") is not None
    for path in (URL, f"{URL}/a", "/api/capabilities", "/metrics"):
        assert (await client.get(path)).status == 200
    assert (await client.delete(f"{URL}/a")).status == 200


async def test_a_forwarded_request_is_401_on_every_api_path(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(peer="172.18.0.2")
    # The headers of the nginx in front.
    headers = {"Host": "provisioner:8002", "X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9"}
    for path in BELOW_API:
        response = await client.get(path, headers=headers)
        assert response.status == 401
        assert_is_json(response)
        assert "forwarded requests are refused" in (await response.json())["detail"]
    assert cluster.calls == []


@pytest.mark.parametrize("method", METHODS)
async def test_a_public_peer_gets_401_on_every_api_method_and_path(
    make_client: MakeClient, cluster: FakeCluster, method: str
) -> None:
    client = await make_client(peer="203.0.113.9")
    for path in BELOW_API:
        assert (await client.request(method, path)).status == 401
    for path in [*OPEN, "/metrics"]:
        assert (await client.request(method, path)).status in {200, 405}
    assert {call[:2] for call in cluster.calls} <= {("get", "--raw"), ("create", "--raw")}  # of /readyz


async def test_a_peer_without_an_address_is_rejected(make_client: MakeClient) -> None:
    client = await make_client(peer="")
    response = await client.get(URL)
    assert response.status == 401
    assert "the caller's is unknown" in (await response.json())["detail"]


async def test_in_a_pod_the_api_is_401_but_health_docs_and_metrics_are_200(make_client: MakeClient) -> None:
    client = await make_client(in_pod=True)
    for path in BELOW_API:
        response = await client.get(path)
        assert response.status == 401
        assert "a provisioner in a Pod answers nothing" in (await response.json())["detail"]
    for path in [*OPEN, "/metrics"]:
        assert (await client.get(path)).status == 200


@pytest.mark.parametrize("in_pod", [False, True])
async def test_allow_unauthenticated_does_not_allow_cross_origin_requests(
    make_client: MakeClient, *, in_pod: bool
) -> None:
    client = await make_client(peer="203.0.113.9", in_pod=in_pod, ALLOW_UNAUTHENTICATED="true")
    assert (await client.get(URL, headers={"X-Forwarded-For": "198.51.100.1"})).status == 200
    assert (await client.get(URL, headers={"Origin": EVIL})).status == 403


@pytest.mark.parametrize("allow", ["", "true"])
async def test_with_a_key_set_only_the_key_is_checked(make_client: MakeClient, allow: str) -> None:
    client = await make_client(peer="203.0.113.9", in_pod=True, PROVISIONER_API_KEY="k3y", ALLOW_UNAUTHENTICATED=allow)
    headers = {"Host": "evil.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site", "X-Forwarded-For": "192.0.2.1"}
    assert (await client.get(URL, headers={**headers, "X-API-Key": "k3y"})).status == 200
    assert (await client.get("/metrics", headers=headers)).status == 200
    assert (await client.get(URL)).status == 401


# Browsers.

FOREIGN: list[dict[str, str]] = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    # A sandbox's page on another port of this machine.
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "localhost:8002", "Origin": "http://localhost:30817"},
    # DNS rebinding: the attacker's name resolves to this machine, so the browser treats it as same-origin.
    {"Host": "evil.example:8002", "Origin": "http://evil.example:8002", "Sec-Fetch-Site": "same-origin"},
    {"Host": "evil.example"},
]


async def test_a_cross_origin_page_cannot_create_a_sandbox(client: Client, cluster: FakeCluster) -> None:
    # A simple request: browsers send it without a preflight.
    headers = {"Content-Type": "text/plain", "Host": "localhost:8002"}
    for foreign in FOREIGN:
        response = await client.post(URL, data=b'{"sandbox_id": "a"}', headers={**headers, **foreign})
        assert response.status == 403
        assert_is_json(response)
        assert (await response.json())["detail"].startswith("Without an API key ")
    assert cluster.calls == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", [*BELOW_API, "/metrics"])
async def test_a_cross_origin_request_is_403_for_every_method(
    client: Client, cluster: FakeCluster, method: str, path: str
) -> None:
    for headers in FOREIGN:
        response = await client.request(method, path, headers=headers)
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    assert cluster.calls == []


async def test_a_same_origin_page_is_allowed(client: Client) -> None:
    origin = f"http://127.0.0.1:{client.port}"
    for headers in ({"Origin": origin, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert (await client.get(URL, headers=headers)).status == 200


async def test_health_and_docs_are_open_to_cross_origin_pages(client: Client) -> None:
    for path in OPEN:
        for headers in FOREIGN:
            assert (await client.get(path, headers=headers)).status == 200


async def test_a_host_of_allowed_hosts_is_accepted(make_client: MakeClient) -> None:
    client = await make_client(ALLOWED_HOSTS="sandboxes.example other.example")
    headers = {"Host": "Sandboxes.Example:8002", "Origin": "http://sandboxes.example:8002"}
    assert (await client.get(URL, headers=headers)).status == 200
    assert (await client.get(URL, headers={"Host": "evil.example"})).status == 403


async def test_the_request_target_does_not_replace_the_host_header(client: Client) -> None:
    answer = await send(client, b"GET http://localhost/api/sandboxes HTTP/1.1\r\nHost: evil.example\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    answer = await send(client, b"GET /api/sandboxes HTTP/1.0\r\n")
    assert answer.startswith(b"HTTP/1.0 403 ")


# Logs and metrics.


async def test_each_rejected_request_logs_one_warning_with_its_reason(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sandboxes")
    await client.get("/metrics", headers={"Origin": EVIL, "X-Request-ID": "find-me"})
    await client.get(URL, headers={"X-Forwarded-For": "203.0.113.9"})
    foreign, forwarded = [record for record in caplog.records if record.name == "sandboxes.api.middlewares"]
    assert foreign.levelname == forwarded.levelname == "WARNING"
    host = re.escape(f"127.0.0.1:{client.port}")
    assert re.fullmatch(
        "BrowserRefused: Without an API key cross-origin browser requests are refused "
        rf"\(header Origin\)\npeer: 127\.0\.0\.1, host: '{host}', origin: '{EVIL}'",
        foreign.getMessage(),
    )
    assert forwarded.getMessage().startswith("Unauthenticated: Without an API key forwarded requests are refused")


async def test_rejected_requests_are_counted_by_kind_and_status(client: Client) -> None:
    await client.get(URL, headers={"Origin": EVIL})
    await client.get(URL, headers={"Forwarded": "for=203.0.113.9"})
    await client.get("/metrics", headers={"Host": "evil.example"})
    found = await scrape(client)
    assert value(found, "provisioner_failures_total", kind="BrowserRefused") == 2
    assert value(found, "provisioner_failures_total", kind="Unauthenticated") == 1
    assert requests(found, "GET", URL, 403) == requests(found, "GET", URL, 401) == 1
    assert requests(found, "GET", "/metrics", 403) == 1


# Generated headers.

# Bytes that HTTP allows in a header (RFC 9110, 5.5); aiohttp rejects requests with other bytes.
ALLOWED = bytes([9, *range(32, 127), *range(128, 256)])
HEADER = st.lists(st.sampled_from(ALLOWED), max_size=30).map(bytes)
HOST = st.sampled_from([b"localhost", b"127.0.0.1:8002", b"[::1]", b"evil.example", b"a@b", b"[", b"a:b"]) | HEADER
ORIGIN = st.sampled_from([b"null", b"http://localhost", b"http://[::1", b"http://a:b"]) | HEADER
SITE = st.sampled_from([b"none", b"same-origin", b"cross-site"]) | HEADER


async def send(client: Client, head: bytes) -> bytes:
    """Send a request with this head and return the raw response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head + b"Connection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@SETTINGS
@given(host=st.none() | HOST, origin=st.none() | ORIGIN, site=st.none() | SITE)
@example(host=b"localhost", origin=b"http://localhost", site=b"same-origin")
@example(host=b"localhost", origin=None, site=None)
async def test_any_bytes_in_browser_headers_are_200_or_403(
    client: Client, host: bytes | None, origin: bytes | None, site: bytes | None
) -> None:
    # HTTP/1.1 requires 400 without a Host header.
    head = b"GET /api/capabilities HTTP/1.1\r\n" if host is not None else b"GET /api/capabilities HTTP/1.0\r\n"
    for name, header in (("Host", host), ("Origin", origin), ("Sec-Fetch-Site", site)):
        head += b"" if header is None else name.encode() + b": " + header + b"\r\n"
    top, _, body = (await send(client, head)).partition(b"\r\n\r\n")
    status = int(top.split()[1])
    assert status in {200, 403}
    assert b"Content-Type: application/json" in top
    assert ("detail" in json.loads(body)) is (status == 403)


@SETTINGS
@given(raw=st.binary(max_size=30), name=st.sampled_from(["Host", "Origin", "Sec-Fetch-Site"]))
async def test_invalid_header_bytes_never_cause_a_500(client: Client, raw: bytes, name: str) -> None:
    host = b"" if name == "Host" else b"Host: localhost\r\n"
    answer = await send(client, b"GET /api/capabilities HTTP/1.1\r\n" + host + name.encode() + b": " + raw + b"\r\n")
    # Invalid HTTP is 400, also in JSON: tests/contract/test_malformed_requests.py.
    assert int(answer.split()[1]) in {200, 400, 403}
