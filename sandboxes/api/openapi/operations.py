"""What each route promises: its parameters, its answers and which errors it can have. Data only; knows no HTTP library.

A test holds it to the routes that there are, and another one to the table in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.api.params import WaitQuery
from sandboxes.models.problems import Health, InvalidProblem, LimitProblem, NotFoundProblem, Problem, Readiness
from sandboxes.models.requests import CreateRequest, RenewRequest
from sandboxes.models.responses import (
    Capabilities,
    Deleted,
    Diagnostics,
    SandboxAnswer,
    SandboxList,
    SandboxPage,
    TemplateList,
    WaitedAnswer,
)
from sandboxes.service.listing import ListQuery

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON = "application/json"
HTML = "text/html"
EVENTS = "text/event-stream"
METRICS = ("text/plain", "application/openmetrics-text")

# Of an error that any request can have, so that no route names it.
UNKNOWN_PATH = "UnknownPath"


@dataclass(frozen=True)
class Failure:
    """An error answer. `name`: its key among the document's; `retry_after`: None for an answer without the header.

    `retry_after`: whether the header is always there.
    """

    name: str
    status: int
    sentence: str
    bodies: tuple[type[BaseModel], ...] = (Problem,)
    retry_after: bool | None = None
    has_allow: bool = False


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers`: the models of the answer with 200, the fullest first; one of them fits.

    `failures` are names in FAILURES, without `Unauthenticated` and `BrowserRefused`, which follow from the path.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str
    answers: tuple[type[BaseModel], ...] = ()
    # Of the answer with 200, the one that is sent by default first.
    media_types: tuple[str, ...] = (JSON,)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    failures: tuple[str, ...] = ()
    # Whether it has an ETag, and answers 304 to a caller who has that already.
    is_cached: bool = False

    @property
    def needs_key(self) -> bool:
        """Whether the API key is asked for, where the operator has set one."""
        return self.path.startswith("/api/")

    @property
    def of_callers(self) -> tuple[str, ...]:
        """The failures that are about who asks, whatever is asked for."""
        if self.needs_key:
            return ("Unauthenticated", "BrowserRefused")
        return ("BrowserRefused",) if self.path == "/metrics" else ()


FAILURES = {
    failure.name: failure
    for failure in (
        Failure("BadRequest", 400, "`extra_mounts` breaks a rule, or the body can't be read."),
        Failure(
            "Unauthenticated",
            401,
            "The operator has set API keys, and the `X-API-Key` header is missing or wrong. Or there are none, and the "
            "caller's address is neither loopback nor private, or a proxy has forwarded the request, or the service "
            "runs in a Pod.",
        ),
        Failure(
            "FieldNotAllowed",
            403,
            "The request has an optional field that the operator does not allow; or it is one of `BrowserRefused`.",
        ),
        Failure(
            "BrowserRefused",
            403,
            "There is no API key, and by its headers `Sec-Fetch-Site`, `Origin` and `Host` this may be a browser's "
            "request for a page of another origin.",
        ),
        Failure(
            "SandboxNotFound",
            404,
            "There is no such sandbox, or its Pod is being deleted, or no sandbox can have the id.",
            (NotFoundProblem,),
        ),
        Failure("RequestTimeout", 408, "The body did not arrive within 10 s."),
        Failure(
            "SandboxConflict",
            409,
            "The id belongs to another thread or user, or to what is no sandbox; that stays as it is.",
        ),
        Failure("ContentTooLarge", 413, "The body is larger than 1 MiB."),
        Failure(
            "Unprocessable",
            422,
            "The request is not JSON, or has a field or parameter that can't be.",
            (InvalidProblem,),
        ),
        Failure(
            "LimitReached",
            429,
            "A quota or `MAX_SANDBOXES` is reached, or the cluster's node ports are used up.",
            (LimitProblem, Problem),
            retry_after=True,
        ),
        Failure(
            "ClusterRefused",
            502,
            "The cluster refuses what the operator set up: template, rights, policy, credentials.",
        ),
        Failure(
            "ClusterUnavailable",
            503,
            "The cluster can't be reached or can't do this just now, or too many requests are waiting.",
            retry_after=True,
        ),
        Failure(
            "EventsUnavailable",
            503,
            "The live view is not up to date just now, or is switched off; then there is no `Retry-After`.",
            retry_after=False,
        ),
        Failure("NotReady", 503, "This replica can't do its work; `checks` says why.", (Readiness,)),
        Failure("ClusterTimeout", 504, "The cluster did not answer in time."),
        # What follows can happen to any request, so the operations don't repeat it.
        Failure(UNKNOWN_PATH, 404, "There is no such path."),
        Failure("MethodNotAllowed", 405, "The path has no such method.", has_allow=True),
        Failure("InternalError", 500, "A bug: the log has it under the answer's `X-Request-ID`."),
    )
}

_OF_CLUSTER = ("ClusterRefused", "ClusterUnavailable", "ClusterTimeout")
_OF_BODY = ("BadRequest", "FieldNotAllowed", "RequestTimeout", "ContentTooLarge", "Unprocessable")
_SANDBOX = "/api/sandboxes/{sandbox_id}"

OPERATIONS = (
    Operation(
        "POST",
        "/api/sandboxes",
        "create_sandbox",
        "Make a sandbox, or return the one that is there",
        "Idempotent: the same `sandbox_id` again is 200 again, with the same sandbox. All or nothing: after an error "
        "nothing that it made is left. With `wait_seconds` it answers when the sandbox can be used, within 25 s; it is "
        "404 if the sandbox was deleted while it waited.",
        (WaitedAnswer, SandboxAnswer),
        body=CreateRequest,
        failures=(*_OF_BODY, "SandboxNotFound", "SandboxConflict", "LimitReached", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        "/api/sandboxes",
        "list_sandboxes",
        "List sandboxes",
        "What `GET` of each would answer with 200, in the order of the ids. Each parameter that is given must fit. "
        "With `limit` it comes in pages: `next_cursor` is the `cursor` of the next one.",
        (SandboxPage, SandboxList),
        query=ListQuery,
        failures=("Unprocessable", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        _SANDBOX,
        "get_sandbox",
        "Tell of one sandbox",
        "At once, or with `wait_seconds` when it can be used. Only the status `Running` means alive.",
        (WaitedAnswer, SandboxAnswer),
        query=WaitQuery,
        failures=("SandboxNotFound", "Unprocessable", *_OF_CLUSTER),
    ),
    Operation(
        "DELETE",
        _SANDBOX,
        "delete_sandbox",
        "Delete a sandbox",
        "One that isn't there, or can't be, is deleted already: 200, too.",
        (Deleted,),
        failures=_OF_CLUSTER,
    ),
    Operation(
        "GET",
        f"{_SANDBOX}/diagnostics",
        "get_diagnostics",
        "Tell why a sandbox is as it is",
        "Conditions, containers, Events and the last lines of the log. What can't be read is said at `error` of its "
        "part and fails nothing else.",
        (Diagnostics,),
        failures=("SandboxNotFound", *_OF_CLUSTER),
    ),
    Operation(
        "POST",
        f"{_SANDBOX}/renew",
        "renew_sandbox",
        "Have a sandbox end `ttl_seconds` from now",
        "Sooner or later than before; 0: never.",
        (SandboxAnswer,),
        body=RenewRequest,
        failures=("SandboxNotFound", *_OF_BODY, *_OF_CLUSTER),
    ),
    Operation(
        "POST",
        f"{_SANDBOX}/touch",
        "touch_sandbox",
        "Count this as a use of a sandbox",
        "Puts off the end of one that has `idle_timeout_seconds`. A body is not read.",
        (SandboxAnswer,),
        failures=("SandboxNotFound", *_OF_CLUSTER),
    ),
    Operation(
        "GET",
        "/api/events",
        "stream_events",
        "Tell of every change as it happens",
        "Server-sent events, without end. The first is `state`, with the list of all sandboxes; then come `created`, "
        "`changed`, `ready`, `expiring` (60 s before the end) and `deleted`, each with the sandbox as `GET` tells of "
        "it; a deleted one has the status `NotFound`. A comment every 15 s of silence keeps the connection.",
        media_types=(EVENTS,),
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
        "/api/capabilities",
        "get_capabilities",
        "Say what this service can do",
        "Never touches the cluster.",
        (Capabilities,),
    ),
    Operation(
        "GET",
        "/health",
        "get_health",
        "Say that the process is up",
        "Never touches the cluster, and needs no key.",
        (Health,),
    ),
    Operation(
        "GET",
        "/livez",
        "get_livez",
        "Say that the process is up",
        "As `/health`, under the name that Kubernetes uses.",
        (Health,),
    ),
    Operation(
        "GET",
        "/readyz",
        "get_readyz",
        "Say whether this replica can do its work",
        "Names what fails. What was found is believed for 3 s. Needs no key.",
        (Readiness,),
        failures=("NotReady",),
    ),
    Operation(
        "GET",
        "/metrics",
        "get_metrics",
        "Tell Prometheus of this process",
        "Never touches the cluster, and needs no key. As OpenMetrics for a caller who asks for that in `Accept`.",
        media_types=METRICS,
    ),
    Operation("GET", "/openapi.json", "get_openapi", "Give this document", "Needs no key.", is_cached=True),
    Operation(
        "GET",
        "/docs",
        "get_docs",
        "Show this document to a person",
        "One page without scripts, which loads nothing. Needs no key.",
        media_types=(HTML,),
        is_cached=True,
    ),
)


def statuses(operation: Operation) -> set[int]:
    """Return the statuses of the errors that the operation can have by itself."""
    return {FAILURES[name].status for name in (*operation.failures, *operation.of_callers)}
