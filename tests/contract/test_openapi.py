"""The OpenAPI document and the running service: schemathesis generates requests and checks the responses.

Two of its checks are off. negative_data_rejection: by the contract unknown fields are ignored, and "5" counts as 5.
positive_data_acceptance: a schema cannot express Kubernetes' rules for labels, quantities and images.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_schema_validator import OAS31Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from devcluster import Cluster
from sandboxes.api.openapi.document import document
from sandboxes.api.openapi.operations import OPERATIONS, Operation
from sandboxes.api.openapi.schemas import schemas
from sandboxes.models.requests import OPTIONAL_FIELDS
from sandboxes.models.responses import SandboxList, SandboxResponse
from tests.contract.faults import refuse_next
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.contract.service import StartProvisioner, create
from tests.kubectl import SPEED
from tests.waiting import until

KEY = {"X-API-Key": "a-key"}
THERE = "there"
EVENTS_PATH = "/api/events"
# They say where a request ends, so the document can't: what is none is 400 (tests/api/test_boundaries.py).
FRAMING = {"transfer-encoding", "content-length", "connection", "upgrade", "expect", "host"}

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]


def strict_document() -> dict[str, Any]:
    """Return the document with responses that allow no additional fields; the published one allows them."""
    made: dict[str, Any] = json.loads(json.dumps(document()))
    bodies = [operation.body for operation in OPERATIONS if operation.body is not None]
    of_requests = schemas([(body, "validation") for body in bodies])  # and their nested models
    for name, schema in made["components"]["schemas"].items():
        if name not in of_requests:
            schema["additionalProperties"] = False
    return made


DOCUMENT = strict_document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the service as a process with a key and all optional fields allowed; return its URL.

    Its cluster runs in another thread, since schemathesis' requests block.
    """
    directory = tmp_path_factory.mktemp("openapi")
    loop = asyncio.new_event_loop()
    port = free_port()
    started, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with Cluster(directory=directory / "cluster", speed=SPEED) as cluster:
            environ = environment(
                directory,
                # So that sandboxes have URLs that can be made invalid.
                SANDBOX_ACCESS="gateway",
                SANDBOX_GATEWAY_DIAL="pod-ip",
                SANDBOX_GATEWAY_HOST="127.0.0.1",
                SANDBOX_GATEWAY_PORT=str(free_port()),
                KUBECONFIG_PATH=str(cluster.kubeconfig),
                NODE_HOST="127.0.0.1",
                PORT=str(port),
                PROVISIONER_API_KEY=KEY["X-API-Key"],
                ALLOW_FIELDS=",".join(OPTIONAL_FIELDS),
            )
            async with running(*PROVISIONER, environ=environ, log=directory / "log"):
                await until(healthy(port))
                started.set()
                await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(60), (directory / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, list[int]]]:
    """Return the statuses by operation; assert at the end that the expected ones occurred."""
    statuses: dict[str, list[int]] = defaultdict(list)
    yield statuses
    for label, answered in statuses.items():
        method, path = label.split(" ")
        documented = {int(status) for status in DOCUMENT["paths"][path][method.lower()]["responses"]}
        expected = {200, 304, 401, 404, 422} & documented
        if label == "POST /api/sandboxes":
            expected -= {404}  # needs a delete during the wait: tests/contract/test_readiness.py
        assert expected <= set(answered), label


@pytest.fixture
def base_with_sandbox(base: str) -> str:
    """Return the URL of a service with the sandbox THERE."""
    made = requests.post(f"{base}/api/sandboxes", json={"sandbox_id": THERE}, headers=KEY, timeout=30)
    assert made.status_code == 200, made.text
    return base


# The event stream never ends; it has its own test.
@pytest.mark.slow
@SCHEMA.exclude(path=EVENTS_PATH).parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_every_response_conforms_to_the_document(
    case: schemathesis.Case[Any], base_with_sandbox: str, seen: dict[str, list[int]]
) -> None:
    answered = seen[case.operation.label]
    if "sandbox_id" in case.path_parameters and len(answered) % 2:
        # Otherwise hardly any request would find a sandbox.
        case.path_parameters["sandbox_id"] = THERE
    for fields in (case.query, case.body):
        seconds = fields.get("wait_seconds") if isinstance(fields, dict) else None
        if isinstance(fields, dict) and isinstance(seconds, int | float):
            fields["wait_seconds"] = min(seconds, 0.1)
    for name in [one for one in case.headers if one.lower() in FRAMING]:
        del case.headers[name]
    headers = {} if case.operation.path in {"/health", "/docs", "/openapi.json"} else KEY
    response = case.call(base_url=base_with_sandbox, headers=headers, timeout=30)
    answered.append(response.status_code)
    case.validate_response(response, checks=CHECKS, headers=headers)
    # A second validator, which also knows the responses to methods that are not allowed.
    documented = DOCUMENT["paths"][case.operation.path][case.operation.method]["responses"].get(
        str(response.status_code)
    )
    if documented is None:
        assert response.status_code == 405
        documented = DOCUMENT["components"]["responses"]["MethodNotAllowed"]
    content_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    if "$ref" in documented or content_type == "application/json":
        assert problems(documented, response.status_code, response.headers, content_type, response.text) == []


def problems(response: dict[str, Any], status: int, headers: Any, content_type: str, body: str) -> list[str]:
    """Return the differences between a response and its documented response."""
    components = DOCUMENT["components"]
    if "$ref" in response:
        response = components["responses"][response["$ref"].rpartition("/")[2]]
    found = []
    sent = {name.lower() for name in headers}
    for name, header in response["headers"].items():
        documented = components["headers"][name] if "$ref" in header else header
        if documented["required"] and name.lower() not in sent:
            found.append(f"{status} has no {name}")
    content = response["content"].get(content_type)
    if content is None:
        return [*found, f"{status} has the content type {content_type}"]
    validator = OAS31Validator({**content["schema"], "components": components})
    return found + [error.message for error in validator.iter_errors(json.loads(body))]


async def problems_of(response: aiohttp.ClientResponse, method: str, path: str) -> list[str]:
    """Return the differences between a response and the operation's documented responses."""
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    if str(response.status) not in responses:
        return [f"{response.status} is not documented"]
    documented = responses[str(response.status)]
    return problems(documented, response.status, response.headers, response.content_type, await response.text())


OF_CLUSTER = [
    operation
    for operation in OPERATIONS
    if {"ClusterRefused", "ClusterUnavailable", "ClusterTimeout"} <= set(operation.failures)
]
BODIES = {"create_sandbox": {"sandbox_id": "a"}, "renew_sandbox": {"ttl_seconds": 60}}


@pytest.mark.slow
async def test_responses_while_the_cluster_is_unreachable_are_documented(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    provisioner = await start_provisioner(LIVE_VIEW="false")
    await create(provisioner)
    cluster.faults.refuse()

    async def ask(operation: Operation) -> tuple[str, int, list[str]]:
        url = operation.path.replace("{sandbox_id}", "a")
        response = await provisioner.client.request(operation.method, url, json=BODIES.get(operation.name))
        return operation.name, response.status, await problems_of(response, operation.method, operation.path)

    results = await asyncio.gather(*(ask(operation) for operation in OF_CLUSTER))
    assert results == [(operation.name, 503, []) for operation in OF_CLUSTER]
    assert len(results) == 10


@pytest.mark.parametrize(
    ("recorded", "status"),
    [
        ("apply-quota-exceeded", 429),
        pytest.param("apply-forbidden-no-create", 502, marks=pytest.mark.slow),
        pytest.param("apply-pod-security-violation", 502, marks=pytest.mark.slow),
    ],
)
async def test_responses_to_a_rejected_create_are_documented(
    cluster: Cluster, start_provisioner: StartProvisioner, recorded: str, status: int
) -> None:
    provisioner = await start_provisioner()
    refuse_next(cluster, "PATCH", "pods", recorded, times=4)
    response = await provisioner.post("/api/sandboxes", json={"sandbox_id": "a"})
    assert response.status == status
    assert await problems_of(response, "POST", "/api/sandboxes") == []


async def test_the_response_at_max_sandboxes_is_documented(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner(MAX_SANDBOXES="1")
    await create(provisioner)
    response = await provisioner.post("/api/sandboxes", json={"sandbox_id": "b"})
    assert response.status == 429
    assert (await response.json())["limit"] == 1
    assert await problems_of(response, "POST", "/api/sandboxes") == []


async def test_events_conform_to_the_document(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner()
    names = set(re.findall(r"`(\w+)`", DOCUMENT["paths"][EVENTS_PATH]["get"]["description"]))
    models = {"state": SandboxList.__name__}
    async with provisioner.client.get(EVENTS_PATH) as response:
        assert response.status == 200
        documented = DOCUMENT["paths"][EVENTS_PATH]["get"]["responses"]["200"]
        assert response.content_type in documented["content"]
        assert "X-Request-ID" in response.headers
        await create(provisioner)
        received = []
        while "ready" not in received:
            frame = (await response.content.readuntil(b"\n\n")).decode()
            match = re.fullmatch(r"id: \d+\nevent: (\w+)\ndata: (.*)\n\n", frame)
            assert match is not None, frame
            name, data = match.groups()
            schema = {"$ref": f"#/components/schemas/{models.get(name, SandboxResponse.__name__)}"}
            validator = OAS31Validator({**schema, "components": DOCUMENT["components"]})
            assert [error.message for error in validator.iter_errors(json.loads(data))] == []
            received.append(name)
    assert received[:2] == ["state", "created"]
    assert set(received) <= names
    # The document's example has the same form.
    assert re.fullmatch(r"id: \d+\nevent: (\w+)\ndata: (.*)\n\n", documented["content"]["text/event-stream"]["example"])


async def test_the_response_of_events_without_a_live_view_is_documented(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner(LIVE_VIEW="false")
    response = await provisioner.get(EVENTS_PATH)
    assert response.status == 503
    assert await problems_of(response, "GET", EVENTS_PATH) == []


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [("GET", "/api/nope", "UnknownPath", 404), ("PUT", "/api/sandboxes", "MethodNotAllowed", 405)],
)
async def test_responses_to_unknown_paths_and_methods_are_documented(
    start_provisioner: StartProvisioner, method: str, path: str, name: str, status: int
) -> None:
    provisioner = await start_provisioner()
    response = await provisioner.client.request(method, path)
    assert response.status == status
    documented = DOCUMENT["components"]["responses"][name]
    assert problems(documented, status, response.headers, response.content_type, await response.text()) == []
