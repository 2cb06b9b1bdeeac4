"""Describes each route: its parameters, answers and errors. Data only.

Tests compare it with the routes of the application; `docs/reference/rest-api.md` is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes import __version__
from sandboxes.api.openapi.failures import FAILURES
from sandboxes.api.params import DeleteQuery, WaitQuery
from sandboxes.deadlines import DEADLINES
from sandboxes.models.clusters import ClusterList
from sandboxes.models.problems import Health, Readiness
from sandboxes.models.requests import ANSWER_SECONDS, CreateRequest, RenewRequest
from sandboxes.models.responses import (
    Capabilities,
    Deleted,
    Diagnostics,
    ForceDeleted,
    ForcedResponse,
    ForcedWaitedResponse,
    Reconciliation,
    SandboxList,
    SandboxPage,
    SandboxResponse,
    TemplateList,
    WaitedResponse,
)
from sandboxes.models.urls import SandboxUrl, UrlRequest
from sandboxes.service.events import EVENT_TYPES
from sandboxes.service.listing import ListQuery

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON = "application/json"
HTML = "text/html"
EVENTS = "text/event-stream"
METRICS = ("text/plain", "application/openmetrics-text")


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers`: the models of a 200 answer, of which one matches; most fields first.

    `failures`: names in FAILURES, without `Unauthenticated` and `BrowserRefused`, which follow from the path.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str
    answers: tuple[type[BaseModel], ...] = ()
    # Of the 200 answer, the default first.
    media_types: tuple[str, ...] = (JSON,)
    body: type[BaseModel] | None = None
    is_body_optional: bool = False
    query: type[BaseModel] | None = None
    failures: tuple[str, ...] = ()
    # Whether it sends an ETag, and answers 304 to a matching If-None-Match.
    is_cached: bool = False
    # Of a 200 answer without a model.
    example: object = None

    @property
    def needs_key(self) -> bool:
        """Whether callers must send an API key, if the operator has set one."""
        return self.path.startswith("/api/")

    @property
    def of_callers(self) -> tuple[str, ...]:
        """Names of the failures that depend on the caller, not on the request."""
        if self.needs_key:
            return ("Unauthenticated", "BrowserRefused")
        return ("BrowserRefused",) if self.path == "/metrics" else ()


_OF_CLUSTER = ("ClusterRefused", "ClusterUnavailable", "ClusterTimeout")
_OF_BODY = ("BadRequest", "FieldNotAllowed", "RequestTimeout", "ContentTooLarge", "Unprocessable")
_OF_URL_BODY = ("BadRequest", "RequestTimeout", "ContentTooLarge", "Unprocessable")
_SANDBOX = "/api/sandboxes/{sandbox_id}"

OPERATIONS = (
    Operation(
        "POST",
        "/api/sandboxes",
        "create_sandbox",
        "Create a sandbox, or return the existing one",
        "Idempotent: the same `sandbox_id` returns the same sandbox. All or nothing: after an error, everything that "
        f"the create made is deleted. With `wait_seconds`, answers when the sandbox can be used, within "
        f"{ANSWER_SECONDS} s; 404 if the sandbox was deleted meanwhile.",
        (ForcedWaitedResponse, ForcedResponse, WaitedResponse, SandboxResponse),
        body=CreateRequest,
        failures=(*_OF_BODY, "SandboxNotFound", "SandboxConflict", "LimitReached", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        "/api/sandboxes",
        "list_sandboxes",
        "List sandboxes",
        "Sandboxes that match all parameters, sorted by ID, each as in the answer to `GET` of it. With `limit`, in "
        "pages: `next_cursor` is the `cursor` of the next page.",
        (SandboxPage, SandboxList),
        query=ListQuery,
        failures=("Unprocessable", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        _SANDBOX,
        "get_sandbox",
        "Get a sandbox",
        "Immediately, or with `wait_seconds` as soon as it can be used. Only the status `Running` means alive.",
        (WaitedResponse, SandboxResponse),
        query=WaitQuery,
        failures=("SandboxNotFound", "Unprocessable", *_OF_CLUSTER),
    ),
    Operation(
        "DELETE",
        _SANDBOX,
        "delete_sandbox",
        "Delete a sandbox",
        "Also 200 if the sandbox does not exist, or the ID is invalid.",
        (ForceDeleted, Deleted),
        query=DeleteQuery,
        failures=("FieldNotAllowed", "SandboxConflict", "Unprocessable", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        f"{_SANDBOX}/diagnostics",
        "get_diagnostics",
        "Explain the state of a sandbox",
        "Conditions, containers, Events and the last lines of the log. If a part can't be read, its `error` says why, "
        "and the others are complete.",
        (Diagnostics,),
        failures=("SandboxNotFound", *_OF_CLUSTER),
    ),
    Operation(
        "POST",
        f"{_SANDBOX}/renew",
        "renew_sandbox",
        "Set the expiry of a sandbox",
        "To now + `ttl_seconds`; 0 disables it. May shorten.",
        (SandboxResponse,),
        body=RenewRequest,
        failures=("SandboxNotFound", *_OF_BODY, *_OF_CLUSTER),
    ),
    Operation(
        "POST",
        f"{_SANDBOX}/touch",
        "touch_sandbox",
        "Record a use of a sandbox",
        "Postpones the expiry of a sandbox with `idle_timeout_seconds`. The body is ignored.",
        (SandboxResponse,),
        failures=("SandboxNotFound", *_OF_CLUSTER),
    ),
    Operation(
        "POST",
        f"{_SANDBOX}/urls",
        "make_url",
        "Get a further URL of a sandbox",
        "By the gateway (`SANDBOX_ACCESS=gateway`): for another port, or with an end. Stores nothing. 409 for a "
        "sandbox that is not reached by the gateway; 422 also for a port of another container of its Pod.",
        (SandboxUrl,),
        body=UrlRequest,
        failures=("SandboxNotFound", "SandboxConflict", *_OF_URL_BODY, *_OF_CLUSTER),
        is_body_optional=True,
    ),
    Operation(
        "DELETE",
        f"{_SANDBOX}/urls",
        "revoke_urls",
        "Make all URLs of a sandbox invalid",
        "By the gateway; the one in `sandbox_url`, too, which is another one in this answer. Open connections by "
        "them end. The other replicas follow as soon as their live views show it.",
        (SandboxResponse,),
        failures=("SandboxNotFound", "SandboxConflict", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        "/api/reconciliation/sandboxes/{sandbox_id}",
        "reconcile_sandbox",
        "Check which Pod a sandbox has",
        "For DeerFlow's clean-up. Each call asks the cluster. `absent` only if it has no Pod of this sandbox, or the "
        "ID is invalid; a cluster that can't be asked is an error. If the sandbox was made anew, `incarnation_id` is "
        "another one.",
        (Reconciliation,),
        failures=_OF_CLUSTER,
    ),
    Operation(
        "GET",
        "/api/events",
        "stream_events",
        "Stream every change",
        f"Server-sent events, without end: {', '.join(f'`{name}`' for name in EVENT_TYPES)}. The first is `state`, "
        "with the list of all sandboxes; each other has one sandbox, as in the answer to `GET` of it. `expiring` comes "
        f"{DEADLINES.expiring:.0f} s before the expiry; a deleted sandbox has the status `NotFound`. A comment after "
        f"every {DEADLINES.sse_comment:.0f} s of silence keeps the connection open.",
        media_types=(EVENTS,),
        example='id: 1795341600000\nevent: state\ndata: {"sandboxes":[],"count":0}\n\n',
        failures=("EventsUnavailable",),
    ),
    Operation(
        "GET",
        "/api/templates",
        "list_templates",
        "List the templates that a create may name",
        "Never touches the cluster.",
        (TemplateList,),
    ),
    Operation(
        "GET",
        "/api/clusters",
        "list_clusters",
        "List the clusters",
        "With the state of each, as far as it is known: a cluster that hangs delays the answer by at most "
        f"{DEADLINES.clusters_answer:g} s.",
        (ClusterList,),
    ),
    Operation(
        "GET",
        "/api/capabilities",
        "get_capabilities",
        "Get the features of this service",
        "Never touches the cluster.",
        (Capabilities,),
    ),
    Operation(
        "GET",
        "/health",
        "get_health",
        "Check that the process is up",
        "Never touches the cluster. Needs no key.",
        (Health,),
    ),
    Operation(
        "GET",
        "/livez",
        "get_livez",
        "Check that the process is up",
        "Like `/health`, under the name that Kubernetes uses.",
        (Health,),
    ),
    Operation(
        "GET",
        "/readyz",
        "get_readyz",
        "Check whether this replica can do its work",
        f"Names the checks that fail. Results are cached for {DEADLINES.ready_believed:.0f} s, and the rights for "
        f"{DEADLINES.rights_believed / 60:.0f} minutes unless one is missing. With `CLUSTERS_FILE`, 200 "
        "while one cluster is ready. Needs no key.",
        (Readiness,),
        failures=("NotReady",),
    ),
    Operation(
        "GET",
        "/metrics",
        "get_metrics",
        "Get metrics for Prometheus",
        "Never touches the cluster. Needs no key. OpenMetrics for a caller that accepts it.",
        media_types=METRICS,
        example='provisioner_sandboxes{status="Running"} 3.0\n',
    ),
    Operation(
        "GET",
        "/openapi.json",
        "get_openapi",
        "Get this document",
        "Needs no key.",
        is_cached=True,
        example={"openapi": "3.1.1", "info": {"title": "Sandbox provisioner", "version": __version__}, "paths": {}},
    ),
    Operation(
        "GET",
        "/docs",
        "get_docs",
        "Read this document as a page",
        "One page without scripts, which loads nothing. Needs no key.",
        media_types=(HTML,),
        example="<!doctype html>…",
        is_cached=True,
    ),
)


def statuses(operation: Operation) -> set[int]:
    """Return the HTTP statuses of the operation's errors, without those that any request can get."""
    return {FAILURES[name].status for name in (*operation.failures, *operation.of_callers)}
