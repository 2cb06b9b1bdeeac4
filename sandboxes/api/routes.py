"""The REST API: routes and middlewares, no logic. What the routes promise is the contract in README.md."""

from __future__ import annotations

import asyncio
import http
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from sandboxes.api.auth import ApiKeys
from sandboxes.api.callers import API, Callers
from sandboxes.api.openapi.routes import add_pages
from sandboxes.api.params import WaitQuery, parsed
from sandboxes.api.sse import stream_events, while_connected
from sandboxes.errors import (
    BadRequest,
    InvalidField,
    ProvisionerError,
    SandboxNotFound,
    TooManySandboxes,
    Unauthenticated,
    Unprocessable,
)
from sandboxes.logs import begin_request, name_sandbox
from sandboxes.models.requests import MAX_EXTRA_MOUNTS, CreateRequest, RenewRequest, SandboxId
from sandboxes.models.responses import Capabilities, Deleted, SandboxAnswer, SandboxList, TemplateList
from sandboxes.ops.health import Health
from sandboxes.ops.metrics import Metrics
from sandboxes.service.listing import REPEATED, ListQuery
from sandboxes.service.sandboxes import Lifecycle
from sandboxes.settings import Settings
from sandboxes.spec.options import check_allowed

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

logger = logging.getLogger(__name__)

LIFECYCLE = web.AppKey("LIFECYCLE", Lifecycle)
SETTINGS = web.AppKey("SETTINGS", Settings)
HEALTH = web.AppKey("HEALTH", Health)
KEYS = web.AppKey("KEYS", ApiKeys)
CALLERS = web.AppKey("CALLERS", Callers)
METRICS = web.AppKey("METRICS", Metrics)

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
# A request that waits is answered within 25 s of its beginning; the rest is for the way.
WAIT_SECONDS = 24.5
REQUEST_ID_HEADER = "X-Request-ID"
API_KEY_HEADER = "X-API-Key"

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_REQUEST_ID = web.RequestKey("REQUEST_ID", str)
_SANDBOX_ID: TypeAdapter[str] = TypeAdapter(SandboxId)

Request = TypeVar("Request", bound=BaseModel)

routes = web.RouteTableDef()


def create_app(
    lifecycle: Lifecycle, settings: Settings, keys: ApiKeys | None = None, callers: Callers | None = None
) -> web.Application:
    """Return the application, not yet running.

    `keys`: default, those of the settings, which may raise StartupError. `callers`: default, those of a process that
    does not run in a Pod.
    """
    app = web.Application(middlewares=[measure, identify, answer_in_json, authenticate], client_max_size=MAX_BODY_BYTES)
    app[LIFECYCLE] = lifecycle
    app[SETTINGS] = settings
    app[KEYS] = keys or ApiKeys(settings)
    app[CALLERS] = callers or Callers(settings, in_pod=False)
    app[HEALTH] = Health(lifecycle.cluster)
    app[METRICS] = Metrics(lifecycle)
    app.add_routes(routes)
    add_pages(app)
    app.on_response_prepare.append(_name_the_request)
    # Before running requests are waited for.
    app.on_shutdown.append(_release)
    return app


@routes.get("/health")
@routes.get("/livez")
async def health(_request: web.Request) -> web.Response:
    """Say that the process is up; never touches the cluster."""
    return _json({"status": "ok"})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """Say whether this replica can do its work, and if not, what is wrong."""
    found = await request.app[HEALTH].readiness()
    status = http.HTTPStatus.OK if found.is_ready else http.HTTPStatus.SERVICE_UNAVAILABLE
    return _json({"ready": found.is_ready, "checks": found.checks}, status=status)


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Tell Prometheus of this process; never touches the cluster."""
    body, content_type = request.app[METRICS].text(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


@routes.get("/api/capabilities")
async def capabilities(request: web.Request) -> web.Response:
    """Say what this service can do."""
    settings = request.app[SETTINGS]
    fields = sorted(set(settings.allow_fields))
    return _json(Capabilities(extra_mounts=settings.deer_flow_host_base_dir is not None, fields=fields))


@routes.get("/api/templates")
async def list_templates(request: web.Request) -> web.Response:
    """List the templates that a create may name; never touches the cluster."""
    templates = request.app[LIFECYCLE].templates()
    return _json(TemplateList(templates=templates, count=len(templates)))


@routes.post("/api/sandboxes")
async def create_sandbox(request: web.Request) -> web.Response:
    """Make a sandbox, or return the one that is there: 200 both times."""
    began = asyncio.get_running_loop().time()
    asked = _parse(await _body(request), CreateRequest, request.app[SETTINGS])
    name_sandbox(asked.sandbox_id, secrets=(asked.env or {}).values())
    answer = await request.app[LIFECYCLE].create(asked)
    return _json(await _after_wait(request, answer, asked.wait_seconds or 0.0, began, is_made=True))


@routes.get("/api/sandboxes")
async def list_sandboxes(request: web.Request) -> web.Response:
    """List what `GET` of each would answer with 200, or what of it the query asks for."""
    if request.query_string:
        query = parsed(ListQuery, request.query, repeated=REPEATED)
        return _json(await request.app[LIFECYCLE].list_matching(query))
    sandboxes = await request.app[LIFECYCLE].list_all()
    return _json(SandboxList(sandboxes=sandboxes, count=len(sandboxes)))


@routes.get("/api/sandboxes/{sandbox_id:[^/]+}")
async def get_sandbox(request: web.Request) -> web.Response:
    """Tell of one sandbox, at once or when it is usable."""
    began = asyncio.get_running_loop().time()
    wait_seconds = parsed(WaitQuery, request.query).wait_seconds if request.query_string else 0.0
    answer = await request.app[LIFECYCLE].get(_existing_id(request))
    return _json(await _after_wait(request, answer, wait_seconds, began))


@routes.get("/api/sandboxes/{sandbox_id:[^/]+}/diagnostics")
async def get_diagnostics(request: web.Request) -> web.Response:
    """Tell why a sandbox is as it is."""
    return _json(await request.app[LIFECYCLE].diagnostics(_existing_id(request)))


@routes.delete("/api/sandboxes/{sandbox_id:[^/]+}")
async def delete_sandbox(request: web.Request) -> web.Response:
    """Delete one sandbox; one that isn't there, or can't be, is deleted already."""
    sandbox_id = request.match_info["sandbox_id"]
    if _is_sandbox_id(sandbox_id):
        await request.app[LIFECYCLE].delete(sandbox_id)
    return _json(Deleted(sandbox_id=sandbox_id))


@routes.post("/api/sandboxes/{sandbox_id:[^/]+}/renew")
async def renew_sandbox(request: web.Request) -> web.Response:
    """Have one sandbox end so many seconds from now."""
    wanted = _parse(await _body(request), RenewRequest, request.app[SETTINGS])
    return _json(await request.app[LIFECYCLE].renew(_existing_id(request), wanted.ttl_seconds))


@routes.post("/api/sandboxes/{sandbox_id:[^/]+}/touch")
async def touch_sandbox(request: web.Request) -> web.Response:
    """Count this as a use of one sandbox."""
    return _json(await request.app[LIFECYCLE].touch(_existing_id(request)))


@routes.get("/api/events", allow_head=False)
async def events(request: web.Request) -> web.StreamResponse:
    """Tell of every change, for as long as the caller listens."""
    return await stream_events(request, request.app[LIFECYCLE].feed)


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, by the template of its route, and measure how long it takes."""
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = "unmatched" if resource is None else resource.canonical
    if not isinstance(response, web.Response):
        return response  # a stream: its time is its reader's
    request.app[METRICS].answered(request.method, route, response.status, time.perf_counter() - started)
    return response


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let every line of the log that belongs to the request carry its id, and the sandbox's."""
    sandbox_id = request.match_info.get("sandbox_id")
    begin_request(_request_id(request), sandbox_id if sandbox_id and _is_sandbox_id(sandbox_id) else None)
    return await handler(request)


@web.middleware
async def answer_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into JSON: what is public of ours, the bare phrase of HTTP's, nothing of a bug's."""
    try:
        return await handler(request)
    except ProvisionerError as error:
        request.app[METRICS].failed(type(error).__name__)
        return _error_answer(error)
    except web.HTTPRequestEntityTooLarge as error:
        # An answer of its own rather than aiohttp's: that one cuts off a caller who is still sending.
        detail = f"The request's body is larger than {MAX_BODY_BYTES // 2**20} MiB"
        return _json({"detail": detail}, status=error.status)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _json({"detail": http.HTTPStatus(error.status).phrase}, status=error.status, headers=allow)
    except web.RequestPayloadError:
        return _json({"detail": "The request's body can't be read"}, status=http.HTTPStatus.BAD_REQUEST)
    except Exception:
        request.app[METRICS].failed("Bug")
        logger.exception("%s %s failed by a bug", request.method, request.rel_url.raw_path)
        return _json({"detail": "Internal error"}, status=http.HTTPStatus.INTERNAL_SERVER_ERROR)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse, under /api/, who has no key, be the path known or not; and where there is no key, who is not nearby."""
    keys = request.app[KEYS]
    if not keys.are_required:
        # The address of the socket: a header that names another one may be anybody's.
        request.app[CALLERS].check(request.path, request.remote, request.headers.items())
    elif request.path.startswith(API):
        given = request.headers.get(API_KEY_HEADER, "").encode(errors="surrogateescape")
        if not keys.accept(given):
            raise Unauthenticated(f"The {API_KEY_HEADER} header is missing or wrong")
    return await handler(request)


async def _release(app: web.Application) -> None:
    app[HEALTH].stop()
    await app[LIFECYCLE].release()


async def _after_wait(
    request: web.Request, answer: SandboxAnswer, seconds: float, began: float, *, is_made: bool = False
) -> SandboxAnswer:
    """Return the answer after a wait of so many seconds at most, if any are asked for; `began`: the request, loop time.

    If the caller hangs up meanwhile, what is returned does not matter.
    """
    if not seconds:
        return answer
    until = min(asyncio.get_running_loop().time() + seconds, began + WAIT_SECONDS)
    wait = request.app[LIFECYCLE].wait(answer, until, is_made=is_made)
    return await while_connected(request, wait) or answer


async def _name_the_request(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[REQUEST_ID_HEADER] = _request_id(request)


def _request_id(request: web.Request) -> str:
    """Return the request's id: the caller's if it is sane, else one that is made at the first call."""
    if _REQUEST_ID not in request:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        request[_REQUEST_ID] = given if _SANE_REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    return request[_REQUEST_ID]


def _existing_id(request: web.Request) -> str:
    """Return the id in the path; raises SandboxNotFound if no sandbox can have it."""
    sandbox_id = request.match_info["sandbox_id"]
    if not _is_sandbox_id(sandbox_id):
        raise SandboxNotFound(f"Sandbox '{sandbox_id}' not found")
    return sandbox_id


async def _body(request: web.Request) -> bytes:
    """Return the body, which must come within BODY_SECONDS."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error


def _parse(body: bytes, model: type[Request], settings: Settings) -> Request:
    """Return the request.

    Raises FieldNotAllowed if it has a field that it may not have, else Unprocessable with what pydantic says of it.
    """
    if not body:
        raise Unprocessable([InvalidField(type="missing", loc=["body"], msg="Field required", input=None)])
    try:
        # NaN and Infinity are not JSON.
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        field = InvalidField(type="json_invalid", loc=["body"], msg=f"Invalid JSON: {error}", input={})
        raise Unprocessable([field]) from error
    if isinstance(document, dict):
        # Before the fields are looked into: who may not use one is told so, and not how to write it.
        check_allowed({name: document[name] for name in document.keys() & model.model_fields.keys()}, settings)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        if any(item["type"] == "too_long" for item in error.errors(include_input=False)):
            raise BadRequest(f"extra_mounts may have at most {MAX_EXTRA_MOUNTS} entries") from error
        raise Unprocessable(
            [
                InvalidField(type=item["type"], loc=["body", *item["loc"]], msg=item["msg"], input=item["input"])
                for item in error.errors(include_url=False)
            ]
        ) from error


def _is_sandbox_id(value: str) -> bool:
    try:
        _SANDBOX_ID.validate_python(value)
    except ValidationError:
        return False
    return True


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
    return _json(body, status=error.status, headers=headers)


def _json(
    body: BaseModel | dict[str, object] | dict[str, str], *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    # An `input` that is echoed may be infinite (1e999 is JSON), which JSON can't say.
    payload = body.as_json if isinstance(body, SandboxAnswer | SandboxList) else to_json(body, inf_nan_mode="null")
    return web.Response(body=payload, status=status, headers=headers, content_type="application/json")
