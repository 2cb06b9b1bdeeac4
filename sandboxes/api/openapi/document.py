"""The REST API as an OpenAPI document, made from the models and the table of operations. Pure.

openapi-pydantic 0.6 was considered: it types the document itself, which is built in one place here and checked by a
validator in the tests. The schemas come from pydantic either way, so it would be a dependency for nothing.
The form: https://spec.openapis.org/oas/v3.1.1.html
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
are also taken as text (`"5"`, `"true"`). `HEAD` is answered as `GET`, without a body, but for the events.

Every error has one sentence at `detail`, but 422 has a list there. Besides what stands with a route, any request can \
be answered with 400 (it is not HTTP), 404 (there is no such path), 405 (with `Allow`) and 500 (a bug), all in JSON.

Where the operator has set API keys, every path under `/api/` needs one in the header `X-API-Key`. Without \
keys, callers from loopback and private addresses are answered, but no browser on behalf of a page of another origin."""


def document() -> Document:
    """Return the document; it is the same for every setting."""
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
                    "description": "Asked for only where the operator has set API keys.",
                }
            },
        },
    }


_HEADERS: dict[str, Document] = {
    "X-Request-ID": {
        "description": "The request's id in the log: the caller's if it sent a sane one.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID}$"},
        "example": "5c9b1d7e",
    },
    "Retry-After": {
        "description": "Seconds after which the same request may pass.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    },
    "Allow": {
        "description": "The methods that the path has.",
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
        # An empty list: no key, also where other operations need one.
        "security": [{_KEY_SCHEME: []}] if operation.needs_key else [],
    }
    parameters = [*_path_parameters(operation), *_query_parameters(operation)]
    if operation.is_cached:
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "description": "An `ETag` that the caller has: then 304, if it is still the same.",
                "schema": {"type": "string"},
                "example": '"0c1f"',
            }
        )
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        schema = reference(operation.body)
        content = {operations.JSON: {"schema": schema, "example": example(schema, known)}}
        made["requestBody"] = {"required": True, "content": content}
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
            "description": "The caller has it already.",
            "headers": {**headers, "ETag": _header("ETag")},
        }
    failures = [FAILURES[name] for name in (*operation.failures, *operation.of_callers)]
    for failure in sorted(failures, key=lambda one: one.status):
        # Of two with one status the operation's own, which tells of the other.
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
            "description": "Sandbox ID. Any other text is an ID that no sandbox has.",
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
    """Return the schema of a value that is not null: a query can't say it, and leaves the parameter out."""
    told = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and not value)}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            told |= choice
    return told


def _models() -> list[tuple[type[BaseModel], JsonSchemaMode]]:
    """Return every model that a body is made of, requests and answers, each once."""
    asked = [operation.body for operation in OPERATIONS if operation.body is not None]
    told = [model for operation in OPERATIONS for model in operation.answers]
    told += [model for failure in FAILURES.values() for model in failure.bodies]
    found: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(asked)]
    return [*found, *((model, "serialization") for model in dict.fromkeys(told))]
