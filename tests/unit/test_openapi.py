"""The OpenAPI document: complete, valid, and equal to the docs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, ValidationError

from sandboxes.api.openapi.document import document
from sandboxes.api.openapi.failures import FAILURES
from sandboxes.api.openapi.html import page
from sandboxes.api.openapi.operations import OPERATIONS, Operation, statuses
from sandboxes.models.requests import CreateRequest, ResourceRequirements
from tests.conftest import ROOT

DOCUMENT = document()
REFERENCE = (ROOT / "docs" / "reference" / "rest-api.md").read_text(encoding="utf-8")


def contents() -> list[tuple[str, dict[str, Any]]]:
    """Return each body of the document with its location."""
    found = []
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            bodies = [("request", operation["requestBody"]), *operation["responses"].items()] if (
                "requestBody" in operation
            ) else [*operation["responses"].items()]  # fmt: skip
            found += [(f"{method} {path} {status}", body) for status, body in bodies if "content" in body]
    return [*found, *DOCUMENT["components"]["responses"].items()]


def is_valid(instance: object, schema: dict[str, Any]) -> bool:
    """Whether the instance is valid by the schema, which may refer to the document's components."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return bool(OAS31Validator(whole).is_valid(instance))


def test_the_document_is_valid_openapi() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


@pytest.mark.parametrize(("where", "body"), contents(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_body_has_a_valid_example(where: str, body: dict[str, Any]) -> None:
    for media_type, documented in body["content"].items():
        assert documented["example"], where
        if media_type == "application/json":
            assert is_valid(documented["example"], documented["schema"]), where


def test_every_parameter_has_a_valid_example() -> None:
    parameters = [
        parameter
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
    ]
    assert {parameter["name"] for parameter in parameters} >= {"sandbox_id", "wait_seconds", "label", "cursor"}
    assert [one["name"] for one in parameters if not is_valid(one["example"], one["schema"])] == []


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_every_model_and_field_has_a_description(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    assert schema["description"]
    assert [field for field, documented in schema["properties"].items() if not documented.get("description")] == []


# Fields that only answers of several clusters have.
LEFT_OUT = {"cluster", "doubled", "incomplete"}


def test_every_field_of_a_response_is_required() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    requests = {"CreateRequest", "RenewRequest", "UrlRequest", "ExtraMount", "ResourceRequirements"}
    for name in schemas.keys() - requests:
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]) - LEFT_OUT, name
    assert schemas["CreateRequest"]["required"] == ["sandbox_id"]


@pytest.mark.parametrize(
    ("field", "value", "is_accepted"),
    [
        ("sandbox_id", "a-1", True),
        ("sandbox_id", "a\n", False),
        ("sandbox_id", "-a", False),
        ("sandbox_id", "az", True),
        ("sandbox_id", "a" * 51, True),
        ("sandbox_id", "a" * 52, False),
        ("thread_id", "T_-1", True),
        ("thread_id", "t" * 65, False),
        ("user_id", "", False),
        ("env", {str(number): "" for number in range(100)}, True),
        ("env", {str(number): "" for number in range(101)}, False),
        ("ttl_seconds", -1, False),
        ("wait_seconds", 0.5, True),
    ],
)
def test_the_schema_rejects_the_same_values_as_the_service(field: str, value: object, *, is_accepted: bool) -> None:
    schema = DOCUMENT["components"]["schemas"]["CreateRequest"]["properties"][field]
    # Python's `$` matches before a final newline, ECMA's does not; the pattern is tested as JSON Schema defines it.
    ecma = json.loads(json.dumps(schema).replace('$"', '\\\\Z"'))
    assert is_valid(value, ecma) is is_accepted
    try:
        CreateRequest.model_validate({"sandbox_id": "a", field: value})
    except ValidationError:
        assert not is_accepted
    else:
        assert is_accepted


def test_no_pattern_uses_python_anchors() -> None:
    text = json.dumps(DOCUMENT)
    assert text.count('"pattern"') >= 5
    assert "\\z" not in text
    assert "\\Z" not in text


@pytest.mark.parametrize("model", [CreateRequest, ResourceRequirements])
def test_each_field_of_a_request_is_documented(model: type[BaseModel]) -> None:
    assert set(DOCUMENT["components"]["schemas"][model.__name__]["properties"]) == set(model.model_fields)


def test_every_failure_of_the_document_is_used() -> None:
    named = {name for operation in OPERATIONS for name in operation.failures}
    named |= {name for operation in OPERATIONS for name in operation.of_callers}
    # Of every request.
    assert set(FAILURES) - named == {"UnknownPath", "MethodNotAllowed", "InternalError"}


def routes_of_the_reference() -> dict[tuple[str, str], set[int]]:
    """Return the statuses of each route, the success first."""
    documented = REFERENCE.partition("<!-- routes: begin -->")[2].partition("<!-- routes: end -->")[0]
    rows = re.findall(r"^\| `(\w+) ([^`]+)` \| ([^|]*\|[^|]*)\|", documented, re.MULTILINE)
    return {(method, path): {int(status) for status in re.findall(r"\d{3}", rest)} for method, path, rest in rows}


def test_the_reference_has_every_route() -> None:
    assert set(routes_of_the_reference()) == {(operation.method, operation.path) for operation in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_reference_has_the_statuses_of_the_route(operation: Operation) -> None:
    responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    errors = {int(status) for status in responses if int(status) >= 400}
    assert errors == statuses(operation)
    assert "200" in responses
    assert routes_of_the_reference()[operation.method, operation.path] == {200, *errors}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_reference_describes_each_operation(operation: Operation) -> None:
    assert f"### {operation.summary}\n\n`{operation.method} {operation.path}`\n\n{operation.description}" in REFERENCE


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_document_has_401_and_403_where_callers_are_checked(operation: Operation) -> None:
    responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
    of_callers = {"401", "403"} if operation.path.startswith("/api/") else set()
    assert set(responses) & {"401", "403"} == ({"403"} if operation.path == "/metrics" else of_callers)


def test_the_references_error_table_has_every_status_of_the_document() -> None:
    table = REFERENCE.partition("<!-- errors: begin -->")[2].partition("<!-- errors: end -->")[0]
    documented = {int(status) for status in re.findall(r"^\| (\d{3}) \|", table, re.MULTILINE)}
    assert documented == {failure.status for failure in FAILURES.values()}


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_the_reference_has_every_field(name: str) -> None:
    options = (ROOT / "docs" / "reference" / "create-options.md").read_text(encoding="utf-8")
    section = options if name == "CreateRequest" else REFERENCE.partition(f"### {name}\n")[2].partition("\n### ")[0]
    fields = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert fields == set(DOCUMENT["components"]["schemas"][name]["properties"])


def test_the_page_has_the_whole_document_and_loads_nothing() -> None:
    text = page(DOCUMENT)
    for operation in OPERATIONS:
        assert f'<h2 id="{operation.name}"><code>{operation.method} {operation.path}</code></h2>' in text
    for schema in DOCUMENT["components"]["schemas"].values():
        for field in schema["properties"]:
            assert f"<code>{field}</code>" in text
    assert not re.search(r"<script|<link|<img|<iframe|src=|@import|url\(|\son\w+=", text)
    links = set(re.findall(r'href="([^"]*)"', text))
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(re.findall(r'id="([^"]*)"', text))


def test_text_of_the_document_is_escaped() -> None:
    text = page({**DOCUMENT, "info": {**DOCUMENT["info"], "title": "<b>", "description": "`<i>` & more"}})
    assert "<b>" not in text
    assert "<code>&lt;i&gt;</code> &amp; more" in text
