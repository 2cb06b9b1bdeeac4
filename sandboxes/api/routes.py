"""HTTP routes of the REST API, without logic. `openapi/operations.py` describes them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.api.app_keys import (
    CALLERS,
    CLUSTERS,
    DEADLINES,
    HEALTH,
    KEYS,
    METRICS,
    SANDBOX_SERVICE,
    SANDBOXES,
    SETTINGS,
)
from sandboxes.api.auth import ApiKeys
from sandboxes.api.callers import Callers
from sandboxes.api.middlewares import answer_in_json, authenticate, identify, json_response, measure, name_the_request
from sandboxes.api.openapi.routes import add_pages
from sandboxes.api.params import (
    MAX_BODY_BYTES,
    WaitQuery,
    delete_query,
    existing_id,
    is_sandbox_id,
    parse_body,
    parse_url_request,
    parsed,
    read_body,
)
from sandboxes.api.probes import alive, metrics_response, readiness_response
from sandboxes.api.sse import stream_events, while_connected
from sandboxes.cluster_settings import DEFAULT_CLUSTER
from sandboxes.logs import name_sandbox
from sandboxes.models.clusters import ClusterList
from sandboxes.models.requests import CreateRequest, RenewRequest
from sandboxes.models.responses import (
    Capabilities,
    Deleted,
    ForceDeleted,
    ForcedResponse,
    SandboxResponse,
    TemplateList,
    with_warning,
)
from sandboxes.ops.clusters import ClusterOverview, ClusterOverviews
from sandboxes.ops.metrics import Metrics
from sandboxes.service.listing import REPEATED, ListQuery
from sandboxes.status.response import reconciliation_of_none

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxes.service.sandboxes import SandboxService
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

routes = web.RouteTableDef()


def create_app(
    service: SandboxService,
    settings: Settings,
    keys: ApiKeys | None = None,
    callers: Callers | None = None,
    clusters: ClusterOverviews | None = None,
) -> web.Application:
    """Build the application without starting it.

    `keys` defaults to those of the settings, which may raise StartupError; `callers` to the rules outside a Pod;
    `clusters` to the cluster of the service, under the name `default`.
    """
    if clusters is None:
        clusters = ClusterOverviews([ClusterOverview(DEFAULT_CLUSTER, service, settings)])
    app = web.Application(middlewares=[measure, identify, answer_in_json, authenticate], client_max_size=MAX_BODY_BYTES)
    app[SANDBOX_SERVICE] = service
    app[SANDBOXES] = service
    app[DEADLINES] = service.cluster.deadlines
    app[SETTINGS] = settings
    app[KEYS] = keys or ApiKeys(settings)
    app[CALLERS] = callers or Callers(settings, in_pod=False)
    app[CLUSTERS] = clusters
    app[HEALTH] = next(iter(clusters.by_name.values())).health
    app[METRICS] = Metrics(service)
    app.add_routes(routes)
    app.add_routes(_with_slash(routes))
    add_pages(app)
    app.on_response_prepare.append(name_the_request)
    # Called before aiohttp waits for running requests.
    app.on_shutdown.append(_release)
    return app


def _with_slash(routes: Iterable[web.AbstractRouteDef]) -> Iterator[web.RouteDef]:
    """Yield each route with a slash at its end, which the predecessor accepted."""
    for one in routes:
        assert isinstance(one, web.RouteDef)  # noqa: S101 - this module has no others
        yield web.RouteDef(one.method, f"{one.path}/", one.handler, one.kwargs)


@routes.get("/health")
@routes.get("/livez")
async def health(_request: web.Request) -> web.Response:
    """Report that the process is up. Never touches the cluster."""
    return alive()


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """Report whether this replica can do its work, and which checks fail."""
    return readiness_response(await request.app[CLUSTERS].readiness())


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Return the metrics for Prometheus. Never touches the cluster."""
    return metrics_response(request, request.app[METRICS])


@routes.get("/api/capabilities")
async def capabilities(request: web.Request) -> web.Response:
    """Return the features and optional fields that the operator has enabled."""
    settings = request.app[SETTINGS]
    fields = sorted(set(settings.allow_fields))
    return json_response(
        Capabilities(
            lark_cli_init_image=settings.lark_cli_init_image is not None,
            lark_cli_broker_image=settings.lark_cli_broker_image is not None,
            extra_mounts=settings.base_directory is not None,
            fields=fields,
        )
    )


@routes.get("/api/templates")
async def list_templates(request: web.Request) -> web.Response:
    """List the templates that a create may name. Never touches the cluster."""
    templates = request.app[SANDBOXES].templates()
    return json_response(TemplateList(templates=templates, count=len(templates)))


@routes.get("/api/clusters")
async def list_clusters(request: web.Request) -> web.Response:
    """List the clusters with the state of each, as far as it is known."""
    reports = request.app[CLUSTERS].reports()
    clusters, doubled = await asyncio.gather(reports, request.app[SANDBOXES].doubled())
    return json_response(ClusterList(clusters=clusters, count=len(clusters), doubled=doubled))


@routes.post("/api/sandboxes")
async def create_sandbox(request: web.Request) -> web.Response:
    """Create a sandbox, or return the existing one: 200 in both cases."""
    began = asyncio.get_running_loop().time()
    asked = parse_body(await read_body(request), CreateRequest, request.app[SETTINGS])
    name_sandbox(asked.sandbox_id, secrets=(asked.env or {}).values())
    answer = await request.app[SANDBOXES].create(asked)
    waited = await _after_wait(request, answer, asked.wait_seconds or 0.0, began, is_made=True)
    if isinstance(answer, ForcedResponse):
        waited = with_warning(waited, answer.warning)
    return json_response(waited)


@routes.get("/api/sandboxes")
async def list_sandboxes(request: web.Request) -> web.Response:
    """List all sandboxes, or those that match the query."""
    query = parsed(ListQuery, request.query, repeated=REPEATED) if request.query_string else None
    return json_response(await request.app[SANDBOXES].list_matching(query))


@routes.get("/api/sandboxes/{sandbox_id:[^/]+}")
async def get_sandbox(request: web.Request) -> web.Response:
    """Return a sandbox, immediately or as soon as it can be used."""
    began = asyncio.get_running_loop().time()
    wait_seconds = parsed(WaitQuery, request.query).wait_seconds if request.query_string else 0.0
    answer = await request.app[SANDBOXES].get(existing_id(request))
    return json_response(await _after_wait(request, answer, wait_seconds, began))


@routes.get("/api/sandboxes/{sandbox_id:[^/]+}/diagnostics")
async def get_diagnostics(request: web.Request) -> web.Response:
    """Explain the state of a sandbox."""
    return json_response(await request.app[SANDBOXES].diagnostics(existing_id(request)))


@routes.delete("/api/sandboxes/{sandbox_id:[^/]+}")
async def delete_sandbox(request: web.Request) -> web.Response:
    """Delete a sandbox. Also 200 if it does not exist, or the id is invalid."""
    sandbox_id = request.match_info["sandbox_id"]
    force = bool(request.query_string) and delete_query(request.query, request.app[SETTINGS]).force
    warning = None
    if is_sandbox_id(sandbox_id):
        warning = await request.app[SANDBOXES].delete(sandbox_id, force=force)
    deleted = Deleted(sandbox_id=sandbox_id)
    return json_response(ForceDeleted(**dict(deleted), warning=warning) if warning else deleted)


@routes.post("/api/sandboxes/{sandbox_id:[^/]+}/renew")
async def renew_sandbox(request: web.Request) -> web.Response:
    """Set the expiry of a sandbox to now + ttl_seconds."""
    wanted = parse_body(await read_body(request), RenewRequest, request.app[SETTINGS])
    return json_response(await request.app[SANDBOXES].renew(existing_id(request), wanted.ttl_seconds))


@routes.post("/api/sandboxes/{sandbox_id:[^/]+}/touch")
async def touch_sandbox(request: web.Request) -> web.Response:
    """Record a use of a sandbox."""
    return json_response(await request.app[SANDBOXES].touch(existing_id(request)))


@routes.post("/api/sandboxes/{sandbox_id:[^/]+}/urls")
async def make_url(request: web.Request) -> web.Response:
    """Return a URL of a sandbox by the gateway, for another port or with an end."""
    wanted = parse_url_request(await read_body(request))
    answer = await request.app[SANDBOXES].make_url(
        existing_id(request), port=wanted.port, ttl_seconds=wanted.ttl_seconds
    )
    return json_response(answer)


@routes.delete("/api/sandboxes/{sandbox_id:[^/]+}/urls")
async def revoke_urls(request: web.Request) -> web.Response:
    """Make all URLs of a sandbox by the gateway invalid."""
    return json_response(await request.app[SANDBOXES].revoke_urls(existing_id(request)))


@routes.get("/api/reconciliation/sandboxes/{sandbox_id:[^/]+}")
async def reconcile_sandbox(request: web.Request) -> web.Response:
    """Report which Pod a sandbox has, or that it has none. An id that no sandbox can have is absent, too."""
    sandbox_id = request.match_info["sandbox_id"]
    if not is_sandbox_id(sandbox_id):
        return json_response(reconciliation_of_none(sandbox_id, request.app[SETTINGS]))
    return json_response(await request.app[SANDBOXES].reconcile(sandbox_id))


@routes.get("/api/events", allow_head=False)
async def events(request: web.Request) -> web.StreamResponse:
    """Stream every change until the caller disconnects."""
    return await stream_events(request, request.app[SANDBOXES].feed)


async def _release(app: web.Application) -> None:
    app[CLUSTERS].stop()
    await app[SANDBOXES].release()
    await app[CLUSTERS].finish()


async def _after_wait(
    request: web.Request, answer: SandboxResponse, seconds: float, began: float, *, is_made: bool = False
) -> SandboxResponse:
    """Return `answer`, updated after a wait of up to `seconds`. `began`: start of the request, in loop time.

    If the caller disconnects, the result is not used.
    """
    if not seconds:
        return answer
    until = min(asyncio.get_running_loop().time() + seconds, began + request.app[DEADLINES].wait)
    wait = request.app[SANDBOXES].wait(answer, until, is_made=is_made)
    return await while_connected(request, wait) or answer
