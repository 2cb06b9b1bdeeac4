"""Diagnoses a sandbox from its Pod's status, Events and logs.

If the Events or a log can't be read in time, that part carries an error and the others are still returned.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import LogMissing, ProvisionerError, SandboxNotFound
from sandboxes.models.responses import (
    LOG_LINES,
    MAX_EVENTS,
    MAX_LOG_BYTES,
    Condition,
    ContainerDiagnosis,
    ContainerState,
    Diagnostics,
    EventsPart,
    LogPart,
    PodEvent,
)
from sandboxes.status.advice import summary_of
from sandboxes.status.causes import cause_of
from sandboxes.status.reasons import shortened, status_of, trouble_of
from sandboxes.status.response import answer_for

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Bytes read of a log: LOG_LINES lines of 16 KiB, the longest that containerd writes unsplit.
MAX_READ_BYTES = LOG_LINES * 16 * 1024


@dataclass(frozen=True)
class _Read:
    """Events and logs, each with the error if it could not be read."""

    events: list[KubeObject]
    events_error: str | None
    logs: LogPart
    previous_logs: LogPart | None


async def diagnose(cluster: Cluster, sandbox_id: str, accesses: Accesses, *, refusal: str = "") -> Diagnostics:
    """Return the diagnosis of a sandbox, even if its Service is missing, within the `diagnosis` deadline (8 s).

    `refusal`: the API server's words about the last create, for the summary.

    Raises SandboxNotFound if its Pod is missing or terminating; ClusterUnavailable, ClusterRefused or ClusterTimeout
    if the Pod can't be read.
    """
    end = asyncio.get_running_loop().time() + cluster.deadlines.diagnosis
    async with within(cluster.deadlines.diagnosis):
        pod, service = await _look(cluster, sandbox_id)
    if pod is None or kube.sandbox_id_of(pod) != sandbox_id or kube.is_terminating(pod):
        raise SandboxNotFound(sandbox_id)
    name = (kube.sandbox_container(pod) or pod["spec"]["containers"][0])["name"]
    previous = None
    async with asyncio.TaskGroup() as group:
        events = group.create_task(_events(cluster, pod, end))
        logs = group.create_task(_log(cluster, pod, name, end))
        if _has_restarted(pod, name):
            previous = group.create_task(_log(cluster, pod, name, end, previous=True))
    read = _Read(*events.result(), logs.result(), None if previous is None else previous.result())
    return _put_together(pod, service, accesses, read, refusal)


async def _look(cluster: Cluster, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
    """Return the Pod and the Service, from the live view if it has all that a sandbox needs, else from the cluster."""
    pod, service = cluster.seen(sandbox_id)
    if pod is not None and (service is not None or kube.is_behind_gateway(pod)):
        return pod, service
    return await cluster.look(sandbox_id)


async def _events(cluster: Cluster, pod: KubeObject, end: float) -> tuple[list[KubeObject], str | None]:
    """Return the Pod's last MAX_EVENTS Events, oldest first, and the error if they can't be read."""
    events, problem = await _part("events", cluster.events_of(pod), end)
    return sorted(events or [], key=_when)[-MAX_EVENTS:], problem


async def _log(cluster: Cluster, pod: KubeObject, container: str, end: float, *, previous: bool = False) -> LogPart:
    call = cluster.logs(pod, container, lines=LOG_LINES, most=MAX_READ_BYTES, previous=previous)
    written, problem = await _part("logs", call, end)
    return LogPart(lines=_last_lines(written or b""), error=problem)


async def _part(what: str, call: Awaitable[T], end: float) -> tuple[T | None, str | None]:
    """Return the call's result and None, or None and the public error."""
    try:
        async with within(end - asyncio.get_running_loop().time()):
            return await call, None
    except LogMissing as error:
        return None, error.public
    except ProvisionerError as error:
        logger.warning("%s can't be read for a diagnosis: %s\n%s", what, error.public, error.detail)
        return None, error.public


def _put_together(
    pod: KubeObject, service: KubeObject | None, accesses: Accesses, read: _Read, refusal: str
) -> Diagnostics:
    trouble = cause_of(pod, trouble_of(pod), read.events)
    answer = answer_for(pod, service, accesses)
    summary = summary_of(pod, trouble, has_url=answer is not None)
    if refusal:
        summary += f" The cluster refused the last create of this sandbox, in its own words: {refusal}"
    return Diagnostics(
        sandbox_id=pod["metadata"]["labels"][kube.ID_LABEL],
        summary=summary,
        status=status_of(pod),
        ready=trouble is None,
        reason=None if trouble is None else trouble.reason,
        message=None if trouble is None else trouble.message,
        sandbox_url=None if answer is None else answer.sandbox_url,
        conditions=[_condition(one) for one in (pod.get("status") or {}).get("conditions") or []],
        containers=_containers(pod),
        events=EventsPart(items=[_event(one) for one in read.events], error=read.events_error),
        logs=read.logs,
        previous_logs=read.previous_logs,
    )


def _condition(condition: KubeObject) -> Condition:
    return Condition(
        type=condition.get("type", ""),
        status=condition.get("status", ""),
        reason=condition.get("reason"),
        message=shortened(condition.get("message")),
        last_transition_time=condition.get("lastTransitionTime"),
    )


def _containers(pod: KubeObject) -> list[ContainerDiagnosis]:
    """Return all containers with their status, init containers first."""
    status = pod.get("status") or {}
    found = []
    for group, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        by_name = {one.get("name"): one for one in status.get(statuses) or []}
        found += [
            _container(spec, by_name.get(spec["name"], {}), init=group == "initContainers")
            for spec in pod["spec"].get(group) or []
        ]
    return found


def _container(spec: KubeObject, status: KubeObject, *, init: bool) -> ContainerDiagnosis:
    return ContainerDiagnosis(
        name=spec["name"],
        init=init,
        image=spec.get("image", ""),
        ready=status.get("ready", False),
        restart_count=status.get("restartCount", 0),
        state=_state(status.get("state") or {}),
        last_termination=_state(status.get("lastState") or {}),
    )


def _state(state: KubeObject) -> ContainerState | None:
    if "waiting" in state:
        waiting = state["waiting"]
        return ContainerState(state="waiting", reason=waiting.get("reason"), message=shortened(waiting.get("message")))
    if "running" in state:
        return ContainerState(state="running", started_at=state["running"].get("startedAt"))
    if "terminated" in state:
        ended = state["terminated"]
        return ContainerState(
            state="terminated",
            reason=ended.get("reason"),
            message=shortened(ended.get("message")),
            exit_code=ended.get("exitCode"),
            started_at=ended.get("startedAt"),
            finished_at=ended.get("finishedAt"),
        )
    return None


def _has_restarted(pod: KubeObject, container: str) -> bool:
    """Whether the container has restarted, so that it has a previous log."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any(one.get("name") == container and one.get("restartCount", 0) > 0 for one in statuses)


def _event(event: KubeObject) -> PodEvent:
    """Convert an Event; those of events.k8s.io/v1 use other time and count fields (record: events-unschedulable)."""
    series = event.get("series") or {}
    return PodEvent(
        type=event.get("type") or "Normal",
        reason=event.get("reason") or "",
        message=shortened(event.get("message")) or "",
        count=series.get("count") or event.get("count") or 1,
        first_timestamp=event.get("firstTimestamp") or event.get("eventTime"),
        last_timestamp=_last_time(event),
    )


def _last_time(event: KubeObject) -> str | None:
    series = event.get("series") or {}
    time: str | None = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return time


def _when(event: KubeObject) -> tuple[str, int]:
    """Sort by last time in whole seconds, which all Events have, then by resourceVersion, which grows (KEP-5504)."""
    return (_last_time(event) or event["metadata"].get("creationTimestamp") or "")[:19], int(
        event["metadata"]["resourceVersion"]
    )


def _last_lines(written: bytes) -> list[str]:
    """Return the last lines within MAX_LOG_BYTES and LOG_LINES; the first one may be cut."""
    return written[-MAX_LOG_BYTES:].decode(errors="replace").splitlines()[-LOG_LINES:]
