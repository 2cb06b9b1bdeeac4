"""The bodies of answers with 200."""

from __future__ import annotations

import functools
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

Status = Literal["Pending", "Running", "Failed", "Succeeded", "Unknown", "NotFound"]


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
