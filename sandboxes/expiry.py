"""Computes when a sandbox expires, from the annotations of its Pod. Pure.

A sandbox expires at the earlier of two times. `expires-at` is a time, or `never`, and is set by the create and by
renewals. The idle timeout is `idle-timeout-seconds` after the last use (`used-at`, else the Pod's create). All times
are UTC. Annotations that can't be parsed are ignored.

Clocks: `expires-at`, `used-at` and `applied-at` are times of the service's own clock, and are compared with that clock
only. So a clock that is wrong changes no lifetime. Between replicas whose clocks differ, a lifetime differs by as much:
keep them within a few seconds. The end of a container is the node's time; the reaper measures (`reaper.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject

NEVER = "never"

FOR_EVER = datetime.max.replace(tzinfo=UTC)
# Any lifetime can be added to, or subtracted from, a time between these.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def present() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def text_of(time: datetime) -> str:
    """Return a time as RFC 3339 with microseconds, and FOR_EVER as `never`."""
    return NEVER if time == FOR_EVER else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def after(seconds: int, start: datetime) -> datetime:
    """Return the time `seconds` after `start`; FOR_EVER if `seconds` is 0."""
    return start + timedelta(seconds=seconds) if seconds else FOR_EVER


def marks_of(ttl_seconds: int, idle_timeout_seconds: int, start: datetime) -> dict[str, str]:
    """Return the expiry annotations of a new Pod; 0 disables a limit, which needs no annotation."""
    marks = {}
    if ttl_seconds:
        marks[kube.EXPIRES_ANNOTATION] = text_of(after(ttl_seconds, start))
    if idle_timeout_seconds:
        marks[kube.IDLE_ANNOTATION] = str(idle_timeout_seconds)
    return marks


def time_of(obj: KubeObject, annotation: str) -> datetime | None:
    """Return the annotation parsed as a time, or None if it is missing, invalid, or no time to calculate with."""
    try:
        time = datetime.fromisoformat(kube.get_annotations(obj)[annotation])
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (KeyError, ValueError, OverflowError):
        return None
    return time if _FIRST <= time <= _LAST else None


def created_at(obj: KubeObject) -> datetime:
    """Return the creation time, in whole seconds."""
    return datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


def touched_at(obj: KubeObject) -> datetime:
    """Return the time of the last create that made, applied, completed or confirmed this object."""
    writes = (kube.APPLIED_AT_ANNOTATION, kube.COMPLETED_ANNOTATION, kube.CONFIRMED_ANNOTATION)
    times = [time_of(obj, one) for one in writes]
    return max([created_at(obj), *(time for time in times if time is not None)])


def ttl_ends_at(pod: KubeObject) -> datetime:
    """Return the time of `expires-at`, FOR_EVER without one; uses do not change it."""
    return time_of(pod, kube.EXPIRES_ANNOTATION) or FOR_EVER


def idle_timeout(pod: KubeObject) -> timedelta | None:
    """Return the idle timeout, or None if there is none."""
    value = kube.get_annotations(pod).get(kube.IDLE_ANNOTATION, "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < len("1000000000") else 0
    return timedelta(seconds=seconds) if seconds else None


def used_at(pod: KubeObject) -> datetime:
    """Return the time of the last use that the Pod records; the create that applied it if it records none.

    The creation time is the API server's, so it counts only for a Pod that has no time of the service's own clock.
    """
    made_at = time_of(pod, kube.APPLIED_AT_ANNOTATION) or created_at(pod)
    return max(made_at, time_of(pod, kube.USED_ANNOTATION) or made_at)


def ends_at(pod: KubeObject, used: datetime | None = None) -> datetime:
    """Return when the sandbox expires without a renewal or further use.

    `used`: a use that is not yet recorded on the Pod.
    """
    idle = idle_timeout(pod)
    if idle is None:
        return ttl_ends_at(pod)
    return min(ttl_ends_at(pod), max(used_at(pod), used or used_at(pod)) + idle)


def expires_at(pod: KubeObject, used: datetime | None = None) -> str | None:
    """Return `ends_at` as an RFC 3339 time in whole seconds, rounded up; None if it never expires."""
    end = ends_at(pod, used)
    if end == FOR_EVER:
        return None
    whole = end.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=bool(end.microsecond))
    return whole.isoformat().replace("+00:00", "Z")


def ended_at(pod: KubeObject) -> datetime:
    """Return when an ended sandbox ended, never before its creation.

    That is when its sandbox container ended: a sidecar may run on and end again and again. Else when the last other
    container did, else the last transition of the Pod's conditions.
    """
    status = pod.get("status") or {}
    statuses = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    own = [_finished_at(kube.sandbox_container_status(pod))]
    times = (
        [time for time in own if time]
        or [time for one in statuses if (time := _finished_at(one))]
        or [one.get("lastTransitionTime") for one in status.get("conditions") or []]
    )
    return max([created_at(pod), *(datetime.fromisoformat(time) for time in times if time)])


def _finished_at(status: KubeObject) -> str | None:
    """Return when the container of this status ended, None if it runs or the kubelet does not know."""
    time: str | None = ((status.get("state") or {}).get("terminated") or {}).get("finishedAt")
    return time
