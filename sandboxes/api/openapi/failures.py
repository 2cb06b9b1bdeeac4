"""All error answers of the API. Data only; `operations.py` lists which of them each route can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.api.params import MAX_BODY_BYTES
from sandboxes.deadlines import DEADLINES
from sandboxes.models.problems import InvalidProblem, LimitProblem, NotFoundProblem, Problem, Readiness
from sandboxes.models.requests import MAX_EXTRA_MOUNTS

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Failure:
    """An error answer. `name`: its key in the document; `example`: values of the fields without an example.

    `retry_after`: whether the header is always present; None if it never is.
    """

    name: str
    status: int
    sentence: str
    example: dict[str, object] = field(default_factory=dict)
    bodies: tuple[type[BaseModel], ...] = (Problem,)
    retry_after: bool | None = None
    has_allow: bool = False


_MIB = f"{MAX_BODY_BYTES // 2**20} MiB"

_ALL = (
    Failure(
        "BadRequest",
        400,
        "`extra_mounts` breaks a rule, or the body can't be read.",
        {"detail": f"extra_mounts may have at most {MAX_EXTRA_MOUNTS} entries"},
    ),
    Failure(
        "Unauthenticated",
        401,
        "The operator has set API keys, and the `X-API-Key` header is missing or wrong. Or there are no keys, and the "
        "caller's address is neither loopback nor private, or a proxy has forwarded the request, or the service runs "
        "in a Pod.",
        {"detail": "The X-API-Key header is missing or wrong"},
    ),
    Failure(
        "FieldNotAllowed",
        403,
        "The request has an optional field that the operator does not allow; or see `BrowserRefused`.",
        {"detail": "The operator does not allow these fields: image"},
    ),
    Failure(
        "BrowserRefused",
        403,
        "No API key is set, and by the headers `Sec-Fetch-Site`, `Origin` and `Host` this may be a cross-origin "
        "browser request.",
        {"detail": "Without an API key cross-origin browser requests are refused (header Origin)"},
    ),
    Failure(
        "SandboxNotFound",
        404,
        "The sandbox does not exist, its Pod is being deleted, or the ID is invalid.",
        {"detail": "Sandbox 'abc' not found"},
        (NotFoundProblem,),
    ),
    Failure(
        "RequestTimeout",
        408,
        f"The body did not arrive within {DEADLINES.body:.0f} s.",
        {"detail": "Request Timeout"},
    ),
    Failure(
        "SandboxConflict",
        409,
        "The ID belongs to another thread or user, or to an object that is not a sandbox; or `force` is set, and the "
        "sandbox is not lost; or a URL is asked for that only the gateway has. Nothing is changed.",
        {"detail": "Sandbox 'abc' belongs to another thread or user"},
    ),
    Failure(
        "ContentTooLarge",
        413,
        f"The body is larger than {_MIB}.",
        {"detail": f"The request's body is larger than {_MIB}"},
    ),
    Failure(
        "Unprocessable",
        422,
        "The request is not JSON, or a field or parameter has a value that is not allowed.",
        bodies=(InvalidProblem,),
    ),
    Failure(
        "LimitReached",
        429,
        "A quota or `MAX_SANDBOXES` is reached, or the cluster's node ports are used up.",
        {"detail": "The limit of 100 sandboxes is reached: 100 exist"},
        (LimitProblem, Problem),
        retry_after=True,
    ),
    Failure(
        "ClusterRefused",
        502,
        "The cluster refuses the operator's configuration: template, rights, policy or credentials.",
        {"detail": "The cluster refuses the provisioner's credentials"},
    ),
    Failure(
        "ClusterUnavailable",
        503,
        "The cluster can't be reached or can't do this at the moment, or too many requests are waiting.",
        {"detail": "The cluster can't be reached"},
        retry_after=True,
    ),
    Failure(
        "EventsUnavailable",
        503,
        "The live view is not up to date, or is switched off; in the latter case there is no `Retry-After`.",
        {"detail": "The live view is not up to date just now"},
        retry_after=False,
    ),
    Failure(
        "NotReady",
        503,
        "This replica can't do its work; `checks` says why.",
        {"ready": False, "checks": {"serving": "ok", "api_server": "The cluster can't be reached"}},
        (Readiness,),
    ),
    Failure(
        "ClusterTimeout",
        504,
        "The cluster did not answer in time.",
        {"detail": "The cluster did not answer in time"},
    ),
    # Any request can have these, so the operations don't repeat them.
    Failure("UnknownPath", 404, "There is no such path.", {"detail": "Not Found"}),
    Failure("MethodNotAllowed", 405, "The path has no such method.", {"detail": "Method Not Allowed"}, has_allow=True),
    Failure(
        "InternalError",
        500,
        "A bug. The log describes it under the answer's `X-Request-ID`.",
        {"detail": "Internal error"},
    ),
)

FAILURES = {failure.name: failure for failure in _ALL}
