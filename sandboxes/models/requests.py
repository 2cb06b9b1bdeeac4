"""What crosses the REST boundary: the request of a create, and the answers.

Field names, patterns and defaults are the contract with existing callers. Unknown fields are accepted and
ignored, since callers are often newer than this service.
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError, to_json

# `sandbox-` + id + `-svc` must be a DNS label of at most 63 characters: 63 - 8 - 4 = 51.
MAX_SANDBOX_ID_LENGTH = 51

# \z is the very end in pydantic's engine; $ would let a last newline pass in others.
SANDBOX_ID_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\z"

MAX_EXTRA_MOUNTS = 10

SandboxId = Annotated[str, StringConstraints(pattern=SANDBOX_ID_PATTERN, max_length=MAX_SANDBOX_ID_LENGTH)]
ThreadId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}\z")]
# The contract knows no longest one. No path is longer (PATH_MAX), and each list of all sandboxes holds it.
MAX_USER_ID_LENGTH = 4096
UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\z", max_length=MAX_USER_ID_LENGTH)]

# Ten years: longer than any sandbox, and no date past what RFC 3339 can say.
MAX_SECONDS = 10 * 365 * 24 * 3600

# How long something may last, in seconds; 0: for ever.
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]

# Of variables, labels or annotations in one request; also so that a hundred thousand wrong ones are one error.
MAX_ENTRIES = 100


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise PydanticCustomError("too_many_entries", "It may have at most {most} entries", {"most": MAX_ENTRIES})
    return value


Texts = Annotated[dict[str, str], BeforeValidator(_few), Field(json_schema_extra={"maxProperties": MAX_ENTRIES})]

Status = Literal["Pending", "Running", "Failed", "Succeeded", "Unknown", "NotFound"]


class ExtraMount(BaseModel):
    """A directory of the node that the caller wants inside the sandbox; the rules are in `mounts.py`."""

    model_config = ConfigDict(frozen=True)

    host_path: str
    container_path: str
    read_only: bool = False


class ResourceAsks(BaseModel):
    """Kubernetes quantities by resource: `cpu`, `memory`, `ephemeral-storage`; a number counts as its text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    requests: Texts | None = None
    limits: Texts | None = None


class CreateRequest(BaseModel):
    """The body of `POST /api/sandboxes`."""

    model_config = ConfigDict(frozen=True)

    sandbox_id: SandboxId
    thread_id: ThreadId | None = None
    user_id: UserId = "default"
    # The limit stands here, too, so that a list of a million wrong entries is not a million errors.
    extra_mounts: list[ExtraMount] = Field(default=[], max_length=MAX_EXTRA_MOUNTS)
    include_legacy_skills: bool = False
    provision_lark_cli_runtime: bool = False
    provision_lark_cli_broker: bool = False
    # Ours from here on. Which of these a caller may use is the operator's choice (ALLOW_FIELDS).
    template: str | None = None
    image: str | None = None
    env: Texts | None = None
    resources: ResourceAsks | None = None
    labels: Texts | None = None
    annotations: Texts | None = None
    ttl_seconds: Seconds | None = None
    idle_timeout_seconds: Seconds | None = None
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class RenewRequest(BaseModel):
    """The body of `POST /api/sandboxes/{id}/renew`."""

    model_config = ConfigDict(frozen=True)

    ttl_seconds: Seconds


# Of a create request; the others are the contract's own.
OPTIONAL_FIELDS = frozenset(
    {
        "template",
        "image",
        "env",
        "resources",
        "labels",
        "annotations",
        "ttl_seconds",
        "idle_timeout_seconds",
        "wait_seconds",
    }
)


class SandboxAnswer(BaseModel):
    """One sandbox, as every route tells of it."""

    model_config = ConfigDict(frozen=True)

    sandbox_id: str
    sandbox_url: str
    status: Status
    # Whether its probes pass.
    ready: bool
    # Why it is not ready, in Kubernetes' own word and sentence; null when it is.
    reason: str | None
    message: str | None
    # RFC 3339, UTC. It expires unless it is renewed or used before; null: never.
    created_at: str
    expires_at: str | None
    # Null for one that was made by hand.
    thread_id: str | None
    user_id: str | None
    template: str | None
    image: str
    # Null until a node is chosen.
    node: str | None

    @functools.cached_property
    def as_json(self) -> bytes:
        """The answer as it is sent; made once, since most answers are sent more often than they change."""
        return self.__pydantic_serializer__.to_json(self)


class WaitedAnswer(SandboxAnswer):
    """One sandbox, as a request tells of it that waited for it."""

    # Whether its URL has answered the provisioner, too; false also where the provisioner can't reach it itself.
    url_checked: bool


class SandboxList(BaseModel):
    """The answer of `GET /api/sandboxes`."""

    sandboxes: list[SandboxAnswer]
    count: int

    @property
    def as_json(self) -> bytes:
        """The answer as it is sent."""
        sandboxes = b",".join([answer.as_json for answer in self.sandboxes])
        return b'{"sandboxes":[%b],"count":%d}' % (sandboxes, self.count)


class SandboxPage(SandboxList):
    """The answer of `GET /api/sandboxes?limit=…`; `next_cursor` is null on the last page."""

    next_cursor: str | None

    @property
    def as_json(self) -> bytes:
        """The answer as it is sent."""
        return b'%b,"next_cursor":%b}' % (super().as_json[:-1], to_json(self.next_cursor))


class Condition(BaseModel):
    """One condition of a Pod, as Kubernetes tells it; the time is RFC 3339."""

    type: str
    status: str
    reason: str | None
    message: str | None
    last_transition_time: str | None


class ContainerState(BaseModel):
    """Where a container is in its life, or how it ended before; the times are RFC 3339."""

    state: Literal["waiting", "running", "terminated"]
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    started_at: str | None = None
    finished_at: str | None = None


class ContainerDiagnosis(BaseModel):
    """One container of a Pod. `state` is null for one of which the node has told nothing yet."""

    name: str
    init: bool
    image: str
    ready: bool
    restart_count: int
    state: ContainerState | None
    last_termination: ContainerState | None


class PodEvent(BaseModel):
    """An Event about a Pod: what happened `count` times between two times, which are RFC 3339."""

    type: str
    reason: str
    message: str
    count: int
    first_timestamp: str | None
    last_timestamp: str | None


class EventsPart(BaseModel):
    """The Events about a Pod, newest last; `error` says why they can't be told."""

    items: list[PodEvent] = []
    error: str | None = None


class LogPart(BaseModel):
    """The last lines of a container's log, newest last; `error` says why they can't be told."""

    lines: list[str] = []
    error: str | None = None


class Diagnostics(BaseModel):
    """The answer of `GET /api/sandboxes/{id}/diagnostics`: how a sandbox is, and why."""

    sandbox_id: str
    # One sentence for a person: what is wrong, and what to do.
    summary: str
    status: Status
    ready: bool
    # As in SandboxAnswer, but for a cause that only the Events tell: `FailedMount`, say.
    reason: str | None
    message: str | None
    # Null for a sandbox that is there only by half: its Service is missing, or has no usable port.
    sandbox_url: str | None
    conditions: list[Condition]
    containers: list[ContainerDiagnosis]
    events: EventsPart
    # Of the sandbox container; the previous one's is null if it has never been restarted.
    logs: LogPart
    previous_logs: LogPart | None


class Deleted(BaseModel):
    """The answer of `DELETE /api/sandboxes/{id}`, also when there was nothing to delete."""

    ok: Literal[True] = True
    sandbox_id: str


class TemplateAnswer(BaseModel):
    """One template that a create may name."""

    name: str
    description: str
    # What its sandboxes run, unless a request names another.
    image: str
    # The kinds of the objects that it brings besides Pod and Service.
    objects: list[str]


class TemplateList(BaseModel):
    """The answer of `GET /api/templates`."""

    templates: list[TemplateAnswer]
    count: int


class Capabilities(BaseModel):
    """What this service can do; a known caller reads the two lark fields, which are false here."""

    lark_cli_init_image: Literal[False] = False
    lark_cli_broker_image: Literal[False] = False
    extra_mounts: bool
    # The optional fields of a create that a caller may use, sorted.
    fields: list[str]
