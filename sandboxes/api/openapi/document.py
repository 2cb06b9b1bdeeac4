"""Builds the OpenAPI document from the models and the table of operations. Pure.

openapi-pydantic 0.6 was considered. It only adds types to the document, which is built in one place here and validated
in the tests; the schemas come from pydantic either way.
Format: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes import __version__
from sandboxes.api.openapi import operations
from sandboxes.api.openapi.failures import FAILURES
from sandboxes.api.openapi.operations import OPERATIONS
from sandboxes.api.openapi.schemas import example, reference, schemas
from sandboxes.api.params import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

    from sandboxes.api.openapi.failures import Failure
    from sandboxes.api.openapi.operations import Operation
    from sandboxes.api.openapi.schemas import Document

_KEY_SCHEME = "ApiKey"

_DESCRIPTION = """\
Creates, watches and removes isolated sandbox Pods on Kubernetes.

JSON in, JSON out. Unknown fields and parameters are ignored, and answers may get more fields. Numbers and booleans \
are also accepted as text (`"5"`, `"true"`). `HEAD` works like `GET` without the body, except for events.

Every error has one sentence in `detail`; 422 has a list there. In addition to the errors listed for a route, any \
request can get 400 (malformed HTTP), 404 (unknown path), 405 (with `Allow`) and 500 (a bug), all in JSON.

If the operator has set API keys, every path under `/api/` needs one in the header `X-API-Key`. Without keys, only \
callers from loopback and private addresses are answered, and cross-origin browser requests are refused."""


def document() -> Document:
    """Return the document. It does not depend on the settings."""
    known = schemas(_models())
    paths: dict[str, Document] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, known)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Sandbox provisioner",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": known,
            "responses": {failure.name: _failure(failure, known) for failure in FAILURES.values()},
            "headers": _HEADERS,
            "securitySchemes": {
                _KEY_SCHEME: {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "Needed only if the operator has set API keys.",
                }
            },
        },
    }


_HEADERS: dict[str, Document] = {
    "X-Request-ID": {
        "description": "ID of the request, also in the log: the caller's if it sent a valid one.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID}$"},
        "example": "5c9b1d7e",
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request may succeed.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    },
    "Allow": {
        "description": "Methods that the path supports.",
        "required": True,
        "schema": {"type": "string"},
        "example": "GET,HEAD",
    },
    "ETag": {
        "description": "Changes when the document does.",
        "required": True,
        "schema": {"type": "string"},
        "example": '"0c1f"',
    },
}


def _header(name: str) -> Document:
    return {"$ref": f"#/components/headers/{name}"}


def _any_of(models: Iterable[type[BaseModel]]) -> Document:
    references = [reference(model) for model in models]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _operation(operation: Operation, known: dict[str, Document]) -> Document:
    made: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "responses": _responses(operation, known),
        # An empty list: this operation needs no key.
        "security": [{_KEY_SCHEME: []}] if operation.needs_key else [],
    }
    parameters = [*_path_parameters(operation), *_query_parameters(operation)]
    if operation.is_cached:
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "description": "`ETag` of the caller's copy; 304 if it is still current.",
                "schema": {"type": "string"},
                "example": '"0c1f"',
            }
        )
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        schema = reference(operation.body)
        content = {operations.JSON: {"schema": schema, "example": example(schema, known)}}
        made["requestBody"] = {"required": not operation.is_body_optional, "content": content}
    return made


def _responses(operation: Operation, known: dict[str, Document]) -> Document:
    if operation.answers:
        schema = _any_of(operation.answers)
        shown = example(schema, known)
    else:
        schema = {"type": "object" if operations.JSON in operation.media_types else "string"}
        shown = operation.example
    headers = {"X-Request-ID": _header("X-Request-ID")}
    found: Document = {
        "200": {
            "description": "OK",
            "headers": headers | ({"ETag": _header("ETag")} if operation.is_cached else {}),
            "content": {media_type: {"schema": schema, "example": shown} for media_type in operation.media_types},
        }
    }
    if operation.is_cached:
        found["304"] = {
            "description": "The caller's copy is current.",
            "headers": {**headers, "ETag": _header("ETag")},
        }
    failures = [FAILURES[name] for name in (*operation.failures, *operation.of_callers)]
    for failure in sorted(failures, key=lambda one: one.status):
        # If two have the same status, use the operation's own; its sentence mentions the other.
        found.setdefault(str(failure.status), {"$ref": f"#/components/responses/{failure.name}"})
    return found


def _failure(failure: Failure, known: dict[str, Document]) -> Document:
    headers = {"X-Request-ID": _header("X-Request-ID")}
    if failure.retry_after is True:
        headers["Retry-After"] = _header("Retry-After")
    elif failure.retry_after is False:
        headers["Retry-After"] = {**_HEADERS["Retry-After"], "required": False}
    if failure.has_allow:
        headers["Allow"] = _header("Allow")
    schema = _any_of(failure.bodies)
    content = {operations.JSON: {"schema": schema, "example": example(schema, known, failure.example)}}
    return {"description": failure.sentence, "headers": headers, "content": content}


def _path_parameters(operation: Operation) -> Iterator[Document]:
    for name in re.findall(r"{(\w+)}", operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": "Sandbox ID. Any other text is treated as the ID of a sandbox that does not exist.",
            "schema": {"type": "string", "minLength": 1},
            "example": "abc",
        }


def _query_parameters(operation: Operation) -> Iterator[Document]:
    if operation.query is None:
        return
    for name, schema in schemas([(operation.query, "validation")])[operation.query.__name__]["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "description": schema.pop("description"),
            "example": schema.pop("examples")[0],
            "schema": _without_null(schema),
        }


def _without_null(schema: Document) -> Document:
    """Return the schema without null: a query omits the parameter instead."""
    plain = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and not value)}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            plain |= choice
    return plain


def _models() -> list[tuple[type[BaseModel], JsonSchemaMode]]:
    """Return the models of all bodies, requests first, each once."""
    requests = [operation.body for operation in OPERATIONS if operation.body is not None]
    answers = [model for operation in OPERATIONS for model in operation.answers]
    answers += [model for failure in FAILURES.values() for model in failure.bodies]
    found: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(requests)]
    return [*found, *((model, "serialization") for model in dict.fromkeys(answers))]
