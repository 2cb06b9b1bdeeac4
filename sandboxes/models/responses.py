"""Bodies of successful answers."""

from __future__ import annotations

import functools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

Status = Literal["Pending", "Running", "Failed", "Succeeded", "Unknown", "NotFound"]

MAX_EVENTS = 50
LOG_LINES = 100
# Most bytes returned of a log; the newest are kept.
MAX_LOG_BYTES = 64 * 1024

# Descriptions and examples that several fields share.
_ID = "Sandbox ID."
_STATUS = "Sandbox status. Only `Running` means alive."
_READY = "Whether the readiness probes pass."
_IMAGE = "Container image."
_TIME = "RFC 3339, UTC."
_REASON = "Reason, in one word."
_MESSAGE = "Reason, in one sentence."
_WHY = "Why it can't be read; null if it can."
_BY_HAND = "Null for a sandbox created by hand."
_ABSENT = "Null if `absent`."
_ABSENT_OR_BY_HAND = "Null if `absent`, or created by hand."
_BACK_OFF = "Back-off restarting failed container"
_THREAD = "Owning thread."
_USER = "Owning user."

# Version of DeerFlow's contract of mounts: since 2, every answer tells whose sandbox it is.
MountContractVersion = Literal[2]
_MOUNT_CONTRACT_VERSION: Any = Field(
    default=2, description="Version of DeerFlow's contract of mounts: answers tell whose sandbox it is.", examples=[2]
)


class SandboxResponse(BaseModel):
    """A sandbox."""

    model_config = ConfigDict(frozen=True)

    sandbox_id: str = Field(description=_ID, examples=["abc"])
    sandbox_url: str = Field(description="Sandbox URL.", examples=["http://127.0.0.1:30817"])
    status: Status = Field(description=_STATUS, examples=["Running"])
    ready: bool = Field(description=_READY, examples=[True])
    reason: str | None = Field(
        description="Why it is not ready, in Kubernetes' own word (an open list); null if it is ready.",
        examples=[None],
    )
    message: str | None = Field(
        description="Why it is not ready, in Kubernetes' own sentence; null if it is ready.", examples=[None]
    )
    created_at: str = Field(description=f"Creation time. {_TIME}", examples=["2026-11-20T09:00:00Z"])
    expires_at: str | None = Field(
        description=f"Expiry, unless it is renewed or used before; null: never. {_TIME}",
        examples=["2026-11-20T10:00:00Z"],
    )
    thread_id: str | None = Field(description=f"{_THREAD} {_BY_HAND}", examples=["t-1"])
    user_id: str | None = Field(description=f"{_USER} {_BY_HAND}", examples=["u-1"])
    template: str | None = Field(description=f"Template name. {_BY_HAND}", examples=["default"])
    image: str = Field(description=_IMAGE, examples=["sandbox:1"])
    node: str | None = Field(description="Node name; null until the Pod is scheduled.", examples=["node-1"])
    mount_contract_version: MountContractVersion = _MOUNT_CONTRACT_VERSION
    cluster: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Cluster that it is on; only where the operator lists clusters (`CLUSTERS_FILE`).",
        examples=["east"],
    )

    @functools.cached_property
    def as_json(self) -> bytes:
        """The JSON body, cached because most answers are sent more often than they change."""
        return self.__pydantic_serializer__.to_json(self)


class WaitedResponse(SandboxResponse):
    """A sandbox, after a wait."""

    url_checked: bool = Field(
        description="Whether its URL answered the provisioner. Also false if the provisioner can't reach it.",
        examples=[True],
    )


FORCED = "The sandbox was deleted by force: its processes may still run on its node, and write to its volumes"
_WARNING: Any = Field(description="What `force` could not make sure of, in one sentence.", examples=[FORCED])


class ForcedResponse(SandboxResponse):
    """A sandbox that replaces a lost one."""

    warning: str = _WARNING


class ForcedWaitedResponse(WaitedResponse):
    """A sandbox that replaces a lost one, after a wait."""

    warning: str = _WARNING


def with_warning(answer: SandboxResponse, warning: str) -> SandboxResponse:
    """Return the answer with the warning."""
    model = ForcedWaitedResponse if isinstance(answer, WaitedResponse) else ForcedResponse
    return model(**{**answer.model_dump(), "warning": warning})


class SandboxList(BaseModel):
    """All matching sandboxes."""

    sandboxes: list[SandboxResponse] = Field(description="Sandboxes, sorted by ID.")
    count: int = Field(description="Number of sandboxes in this answer.", examples=[1])
    incomplete: list[str] = Field(
        default=[],
        exclude_if=lambda value: not value,
        description="Clusters that can't be asked at the moment: their sandboxes may be missing, or out of date. Left "
        "out if there are none.",
        examples=[["west"]],
    )

    @property
    def as_json(self) -> bytes:
        """The JSON body."""
        sandboxes = b",".join([answer.as_json for answer in self.sandboxes])
        incomplete = b',"incomplete":%b' % to_json(self.incomplete) if self.incomplete else b""
        return b'{"sandboxes":[%b],"count":%d%b}' % (sandboxes, self.count, incomplete)


class SandboxPage(SandboxList):
    """One page of the matching sandboxes."""

    next_cursor: str | None = Field(
        description="`cursor` of the next page; null on the last page.", examples=["MTphYmM="]
    )

    @property
    def as_json(self) -> bytes:
        """The JSON body."""
        return b'%b,"next_cursor":%b}' % (super().as_json[:-1], to_json(self.next_cursor))


class Condition(BaseModel):
    """A condition of the Pod, from Kubernetes."""

    type: str = Field(description="Condition type, such as `Ready`.", examples=["Ready"])
    status: str = Field(description="`True`, `False` or `Unknown`.", examples=["False"])
    reason: str | None = Field(description=_REASON, examples=["ContainersNotReady"])
    message: str | None = Field(description=_MESSAGE, examples=["containers with unready status: [sandbox]"])
    last_transition_time: str | None = Field(
        description=f"Time of the last change. {_TIME}", examples=["2026-11-20T09:00:02Z"]
    )


class ContainerState(BaseModel):
    """The state of a container, now or before its last restart."""

    state: Literal["waiting", "running", "terminated"] = Field(description="Container state.", examples=["waiting"])
    reason: str | None = Field(default=None, description=_REASON, examples=["CrashLoopBackOff"])
    message: str | None = Field(default=None, description=_MESSAGE, examples=[_BACK_OFF])
    exit_code: int | None = Field(
        default=None, description="Exit code; null unless the state is `terminated`.", examples=[None]
    )
    started_at: str | None = Field(default=None, description=f"Start time. {_TIME}", examples=[None])
    finished_at: str | None = Field(default=None, description=f"End time. {_TIME}", examples=[None])


class ContainerDiagnosis(BaseModel):
    """A container of the Pod."""

    name: str = Field(description="Container name.", examples=["sandbox"])
    init: bool = Field(description="Whether it is an init container.", examples=[False])
    image: str = Field(description=_IMAGE, examples=["sandbox:1"])
    ready: bool = Field(description=_READY, examples=[False])
    restart_count: int = Field(description="Number of restarts.", examples=[3])
    state: ContainerState | None = Field(description="Container state; null until the node reports one.")
    last_termination: ContainerState | None = Field(
        description="State before the last restart; null without one.",
        examples=[
            {
                "state": "terminated",
                "reason": "OOMKilled",
                "message": None,
                "exit_code": 137,
                "started_at": "2026-11-20T09:01:00Z",
                "finished_at": "2026-11-20T09:01:09Z",
            }
        ],
    )


class PodEvent(BaseModel):
    """An Event about the Pod."""

    type: str = Field(description="`Normal` or `Warning`.", examples=["Warning"])
    reason: str = Field(description=_REASON, examples=["BackOff"])
    message: str = Field(description="What happened, in one sentence.", examples=[_BACK_OFF])
    count: int = Field(description="Number of occurrences.", examples=[4])
    first_timestamp: str | None = Field(
        description=f"Time of the first occurrence. {_TIME}", examples=["2026-11-20T09:00:30Z"]
    )
    last_timestamp: str | None = Field(
        description=f"Time of the last occurrence. {_TIME}", examples=["2026-11-20T09:01:10Z"]
    )


class EventsPart(BaseModel):
    """The Events about the Pod."""

    items: list[PodEvent] = Field(default=[], description=f"Events, newest last, at most {MAX_EVENTS}.")
    error: str | None = Field(default=None, description=_WHY, examples=[None])


class LogPart(BaseModel):
    """The last lines of a container's log."""

    lines: list[str] = Field(
        default=[],
        description=f"Lines, newest last, at most {LOG_LINES} and {MAX_LOG_BYTES // 1024} KiB.",
        examples=[["listening on :8080"]],
    )
    error: str | None = Field(default=None, description=_WHY, examples=[None])


class Diagnostics(BaseModel):
    """The state of a sandbox, and the reasons for it."""

    sandbox_id: str = Field(description=_ID, examples=["abc"])
    summary: str = Field(
        description="What is wrong and what to do, in one sentence.",
        examples=["The container used up its memory (exit code 137): ask for more, or use less."],
    )
    status: Status = Field(description=_STATUS, examples=["Failed"])
    ready: bool = Field(description=_READY, examples=[False])
    reason: str | None = Field(
        description="`reason` as in the answer to `GET` of the sandbox, or one that only Events show (`FailedMount`).",
        examples=["OOMKilled"],
    )
    message: str | None = Field(description="Reason, in Kubernetes' own sentence.", examples=[_BACK_OFF])
    sandbox_url: str | None = Field(
        description="Sandbox URL; null if it needs a Service that is missing or has no usable port.",
        examples=["http://127.0.0.1:30817"],
    )
    conditions: list[Condition] = Field(description="Conditions of the Pod.")
    containers: list[ContainerDiagnosis] = Field(description="Containers of the Pod, init containers included.")
    events: EventsPart = Field(description="Events about the Pod.")
    logs: LogPart = Field(
        description="Log of the container `sandbox`.",
        examples=[{"lines": [], "error": "The container has not started, so it has no log yet"}],
    )
    previous_logs: LogPart | None = Field(
        description="Log from before the last restart of the container `sandbox`; null without one."
    )


class Deleted(BaseModel):
    """The sandbox is deleted, or did not exist."""

    ok: Literal[True] = Field(default=True, description="Always true.")
    sandbox_id: str = Field(description="Sandbox ID, as in the request.", examples=["abc"])


class ForceDeleted(Deleted):
    """A lost sandbox is deleted."""

    warning: str = _WARNING


class Reconciliation(BaseModel):
    """Which Pod a sandbox has."""

    sandbox_id: str = Field(description="Sandbox ID, as in the request.", examples=["abc"])
    status: Literal["found", "absent"] = Field(
        description="Whether its Pod exists. One that is terminating is `found` until it is gone, after a `DELETE` of "
        "the sandbox, too; one that has ended or has no Service is `found` as well.",
        examples=["found"],
    )
    backend_namespace: str = Field(
        description="Name of the sandboxes' namespace; not its UID, which takes a right that the service may lack.",
        examples=["deer-flow"],
    )
    incarnation_id: str | None = Field(
        description=f"UID of the Pod, which a sandbox made anew does not have. {_ABSENT}",
        examples=["5e1e4ee7-9c4f-4d0c-a1b5-3f0f7c1f5d0a"],
    )
    sandbox_url: str | None = Field(
        description="Sandbox URL; null if the Pod, or a Service that it needs, is missing.",
        examples=["http://127.0.0.1:30817"],
    )
    thread_id: str | None = Field(description=f"{_THREAD} {_ABSENT_OR_BY_HAND}", examples=["t-1"])
    user_id: str | None = Field(description=f"{_USER} {_ABSENT_OR_BY_HAND}", examples=["u-1"])
    mount_contract_version: MountContractVersion = _MOUNT_CONTRACT_VERSION


class TemplateResponse(BaseModel):
    """A template."""

    name: str = Field(description="Template name, for `template` of a create.", examples=["persistent"])
    description: str = Field(
        description="What it is for.", examples=["User data on a claim of the sandbox's own, which outlives it."]
    )
    image: str = Field(description="Container image, unless the request names one.", examples=["sandbox:1"])
    objects: list[str] = Field(
        description="Kinds of its objects besides Pod and Service.", examples=[["PersistentVolumeClaim"]]
    )


class TemplateList(BaseModel):
    """All templates that a create may name."""

    templates: list[TemplateResponse] = Field(description="Templates, sorted by name.")
    count: int = Field(description="Number of templates.", examples=[1])


class Capabilities(BaseModel):
    """Features of this service."""

    lark_cli_init_image: bool = Field(description="Whether `LARK_CLI_INIT_IMAGE` is set.", examples=[False])
    lark_cli_broker_image: bool = Field(description="Whether `LARK_CLI_BROKER_IMAGE` is set.", examples=[False])
    mount_contract_version: MountContractVersion = _MOUNT_CONTRACT_VERSION
    extra_mounts: bool = Field(description="Whether the operator allows `extra_mounts`.", examples=[False])
    fields: list[str] = Field(
        description="Optional fields of a create that a caller may use, sorted.",
        examples=[["env", "labels", "ttl_seconds", "wait_seconds"]],
    )
