"""Middlewares: request metrics, ids in the log, JSON errors, authentication."""

from __future__ import annotations

import http
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic_core import to_json

from sandboxes.api.app_keys import CALLERS, KEYS, METRICS, SANDBOX_SERVICE
from sandboxes.api.callers import API
from sandboxes.api.params import MAX_BODY_BYTES, REQUEST_ID, is_sandbox_id
from sandboxes.errors import ProvisionerError, SandboxNotFound, TooManySandboxes, Unauthenticated, Unprocessable
from sandboxes.logs import begin_request
from sandboxes.models.responses import SandboxList, SandboxResponse

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler
    from pydantic import BaseModel

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"

API_KEY_HEADER = "X-API-Key"

_VALID_REQUEST_ID = re.compile(REQUEST_ID)

_REQUEST_ID = web.RequestKey("REQUEST_ID", str)


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record the duration of the request, by method, route template and status."""
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = "unmatched" if resource is None else resource.canonical.rstrip("/") or "/"
    if not isinstance(response, web.Response):
        return response  # a stream lasts as long as its client stays
    request.app[METRICS].answered(request.method, route, response.status, time.perf_counter() - started)
    return response


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the ids of the request and of its sandbox to every log line of the request."""
    sandbox_id = request.match_info.get("sandbox_id")
    begin_request(_request_id(request), sandbox_id if sandbox_id and is_sandbox_id(sandbox_id) else None)
    return await handler(request)


@web.middleware
async def answer_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in JSON: the public text of our own, the phrase of HTTP errors, no detail of a bug."""
    try:
        return await handler(request)
    except ProvisionerError as raised:
        error = request.app[SANDBOX_SERVICE].explained(raised)
        request.app[METRICS].failed(type(error).__name__)
        return _error_answer(error)
    except web.HTTPRequestEntityTooLarge as error:
        # Not aiohttp's own answer: it closes the connection while the caller is still sending.
        detail = f"The request's body is larger than {MAX_BODY_BYTES // 2**20} MiB"
        return json_response({"detail": detail}, status=error.status)
    except web.HTTPException as error:
        return phrase_response(error)
    except web.RequestPayloadError:
        return json_response({"detail": "The request's body can't be read"}, status=http.HTTPStatus.BAD_REQUEST)
    except Exception:
        request.app[METRICS].failed("Bug")
        logger.exception("%s %s failed by a bug", request.method, request.rel_url.raw_path)
        return json_response({"detail": "Internal error"}, status=http.HTTPStatus.INTERNAL_SERVER_ERROR)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require a valid key under /api/, also on unknown paths. If none is configured, apply Callers.check instead."""
    keys = request.app[KEYS]
    if not keys.are_required:
        # The socket's address: headers that name another one can be forged.
        request.app[CALLERS].check(request.path, request.remote, request.headers.items(), request.raw_path)
    elif request.path.startswith(API):
        given = request.headers.get(API_KEY_HEADER, "").encode(errors="surrogateescape")
        if not keys.accept(given):
            raise Unauthenticated(f"The {API_KEY_HEADER} header is missing or wrong")
    return await handler(request)


async def name_the_request(request: web.Request, response: web.StreamResponse) -> None:
    """Set X-Request-ID on the response, also on a stream."""
    response.headers[REQUEST_ID_HEADER] = _request_id(request)


def _request_id(request: web.Request) -> str:
    """Return the request's id: the caller's if it is valid, else a random one, generated at the first call."""
    if _REQUEST_ID not in request:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        request[_REQUEST_ID] = given if _VALID_REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    return request[_REQUEST_ID]


def _error_answer(error: ProvisionerError) -> web.Response:
    if error.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s\n%s", type(error).__name__, error.public, error.detail)
    elif error.detail:
        logger.warning("%s: %s\n%s", type(error).__name__, error.public, error.detail)
    body: dict[str, object] = {"detail": error.fields if isinstance(error, Unprocessable) else error.public}
    if isinstance(error, SandboxNotFound):
        body["status"] = "NotFound"
    if isinstance(error, TooManySandboxes):
        body |= {"count": error.count, "limit": error.limit}
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    return json_response(body, status=error.status, headers=headers)


def phrase_response(error: web.HTTPException) -> web.Response:
    """Return the phrase of an HTTP error as JSON."""
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return json_response({"detail": http.HTTPStatus(error.status).phrase}, status=error.status, headers=allow)


def json_response(
    body: BaseModel | dict[str, object] | dict[str, str], *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a response with this body as JSON."""
    # An echoed `input` may be infinite: JSON accepts 1e999, but can't express infinity.
    payload = body.as_json if isinstance(body, SandboxResponse | SandboxList) else to_json(body, inf_nan_mode="null")
    return web.Response(body=payload, status=status, headers=headers, content_type="application/json")
