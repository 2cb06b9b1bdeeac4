"""Parses and validates request bodies, queries and ids; raises the 422 that lists what is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from sandboxes.api.app_keys import DEADLINES
from sandboxes.errors import BadRequest, InvalidField, SandboxNotFound, Unprocessable
from sandboxes.models.requests import (
    CLUSTER_FIELDS,
    LOST,
    MAX_EXTRA_MOUNTS,
    WAIT,
    SandboxId,
    WaitSeconds,
)
from sandboxes.models.urls import UrlRequest
from sandboxes.spec.options import check_allowed

if TYPE_CHECKING:
    from multidict import MultiMapping

    from sandboxes.settings import Settings

Query = TypeVar("Query", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
# X-Request-ID values that are accepted from a caller, and logged.
REQUEST_ID = r"[A-Za-z0-9._:-]{1,128}"


class WaitQuery(BaseModel):
    """Parameters of `GET /api/sandboxes/{id}`."""

    model_config = ConfigDict(frozen=True)

    wait_seconds: WaitSeconds = Field(default=0.0, description=WAIT, examples=[20])


class DeleteQuery(BaseModel):
    """Parameters of `DELETE /api/sandboxes/{id}`."""

    model_config = ConfigDict(frozen=True)

    force: bool = Field(
        default=False,
        description=f"Delete a sandbox that is lost: {LOST}. 409 if it is not; 403 unless `ALLOW_FIELDS` has `force`.",
        examples=[True],
    )


def delete_query(query: MultiMapping[str], settings: Settings) -> DeleteQuery:
    """Parse the query of a delete. Raises FieldNotAllowed for `force` if the operator does not allow it."""
    check_allowed({"force": query.get("force")}, settings)
    return parsed(DeleteQuery, query)


def parsed(model: type[Query], query: MultiMapping[str], *, repeated: frozenset[str] = frozenset()) -> Query:
    """Parse a query. Parameters that the model lacks are ignored, like unknown fields of a body.

    `repeated`: parameters that may occur more than once. Raises Unprocessable, with loc ["query", name], for an invalid
    value, and for any other parameter that occurs twice.
    """
    given: dict[str, object] = {}
    for name in query.keys() & model.model_fields.keys():
        values = query.getall(name)
        given[name] = values if name in repeated or len(values) > 1 else values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Unprocessable(
            [
                InvalidField(type=item["type"], loc=["query", item["loc"][0]], msg=item["msg"], input=item["input"])
                for item in error.errors(include_url=False)
            ]
        ) from error


_SANDBOX_ID: TypeAdapter[str] = TypeAdapter(SandboxId)

Request = TypeVar("Request", bound=BaseModel)


def existing_id(request: web.Request) -> str:
    """Return the id in the path. Raises SandboxNotFound if it is not a valid sandbox id."""
    sandbox_id = request.match_info["sandbox_id"]
    if not is_sandbox_id(sandbox_id):
        raise SandboxNotFound(sandbox_id)
    return sandbox_id


async def read_body(request: web.Request) -> bytes:
    """Read the body. Raises HTTPRequestTimeout if it does not arrive within the deadline `body`."""
    try:
        async with asyncio.timeout(request.app[DEADLINES].body):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error


def parse_body(body: bytes, model: type[Request], settings: Settings) -> Request:
    """Parse and validate a JSON body.

    Raises FieldNotAllowed for a field that the operator does not allow, BadRequest for too many mounts, and
    Unprocessable with pydantic's errors for anything else.
    """
    document = _document(body)
    if isinstance(document, dict):
        if settings.clusters_file is None:
            # Unknown fields are ignored, and these are unknown where the operator names neither them nor clusters.
            for name in CLUSTER_FIELDS.difference(settings.allow_fields):
                document.pop(name, None)
        # Before validation: a forbidden field gets 403, whatever its value.
        check_allowed({name: document[name] for name in document.keys() & model.model_fields.keys()}, settings)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        if any(item["type"] == "too_long" for item in error.errors(include_input=False)):
            raise BadRequest(f"extra_mounts may have at most {MAX_EXTRA_MOUNTS} entries") from error
        raise _unprocessable(error) from error


def parse_url_request(body: bytes) -> UrlRequest:
    """Parse and validate the body of a request for a URL, whose fields are all optional, and so is the body.

    Raises Unprocessable. ALLOW_FIELDS is about creates.
    """
    if not body.strip():
        return UrlRequest()
    try:
        return UrlRequest.model_validate(_document(body))
    except ValidationError as error:
        raise _unprocessable(error) from error


def _document(body: bytes) -> Any:  # noqa: ANN401 - JSON
    if not body:
        raise Unprocessable([InvalidField(type="missing", loc=["body"], msg="Field required", input=None)])
    try:
        # NaN and Infinity are not JSON.
        return from_json(decode_json(body), allow_inf_nan=False)
    except ValueError as error:
        field = InvalidField(type="json_invalid", loc=["body"], msg=f"Invalid JSON: {error}", input={})
        raise Unprocessable([field]) from error


def _unprocessable(error: ValidationError) -> Unprocessable:
    return Unprocessable(
        [
            InvalidField(type=item["type"], loc=["body", *item["loc"]], msg=item["msg"], input=item["input"])
            for item in error.errors(include_url=False)
        ]
    )


def decode_json(body: bytes) -> str:
    """Return the text of JSON in UTF-8, UTF-16 or UTF-32, without its byte order mark. Raises ValueError.

    Windows programs write one. RFC 8259 lets parsers ignore it, and the predecessor did, as `json.loads` does.
    """
    return body.decode(json.detect_encoding(body))


def is_sandbox_id(value: str) -> bool:
    """Whether the text is a valid sandbox id."""
    try:
        _SANDBOX_ID.validate_python(value)
    except ValidationError:
        return False
    return True
