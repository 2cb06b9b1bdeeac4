"""What crosses the REST boundary: the request of a create, and the answers.

Field names, patterns and defaults are the contract with existing callers. Unknown fields are accepted and
ignored, since callers are often newer than this service.
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# `sandbox-` + id + `-svc` must be a DNS label of at most 63 characters: 63 - 8 - 4 = 51.
MAX_SANDBOX_ID_LENGTH = 51

# \z is the very end in pydantic's engine; $ would let a last newline pass in others.
SANDBOX_ID_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\z"

MAX_EXTRA_MOUNTS = 10

SandboxId = Annotated[str, StringConstraints(pattern=SANDBOX_ID_PATTERN, max_length=MAX_SANDBOX_ID_LENGTH)]
ThreadId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}\z")]
UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\z")]

# Ten years: longer than any sandbox, and no date past what RFC 3339 can say.
MAX_SECONDS = 10 * 365 * 24 * 3600

# How long something may last, in seconds; 0: for ever.
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]

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

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


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
    env: dict[str, str] | None = None
    resources: ResourceAsks | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ttl_seconds: Seconds | None = None
    idle_timeout_seconds: Seconds | None = None
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


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


class SandboxList(BaseModel):
    """The answer of `GET /api/sandboxes`."""

    sandboxes: list[SandboxAnswer]
    count: int

    @property
    def as_json(self) -> bytes:
        """The answer as it is sent."""
        sandboxes = b",".join([answer.as_json for answer in self.sandboxes])
        return b'{"sandboxes":[%b],"count":%d}' % (sandboxes, self.count)


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
