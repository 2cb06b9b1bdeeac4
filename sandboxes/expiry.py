"""How long a sandbox lives: what its Pod's annotations say. Pure.

Two clocks run. `expires-at` is a time, or `never`; it is set at the create and by a renewal. The idle clock runs
from the last use (`used-at`, else the Pod's creation) for `idle-timeout-seconds`. The first that ends, ends the
sandbox. All times are UTC; what can't be read as a time or a number does not end anything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject

NEVER = "never"

FOR_EVER = datetime.max.replace(tzinfo=UTC)


def present() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def text_of(time: datetime) -> str:
    """Return a time as RFC 3339 with microseconds, and FOR_EVER as `never`."""
    return NEVER if time == FOR_EVER else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def after(seconds: int, start: datetime) -> datetime:
    """Return the time `seconds` after `start`; 0 stands for ever."""
    return start + timedelta(seconds=seconds) if seconds else FOR_EVER


def marks_of(ttl_seconds: int, idle_timeout_seconds: int, start: datetime) -> dict[str, str]:
    """Return the annotations of a new Pod that lives so long; 0 stands for ever, which needs no mark."""
    marks = {}
    if ttl_seconds:
        marks[kube.EXPIRES_ANNOTATION] = text_of(after(ttl_seconds, start))
    if idle_timeout_seconds:
        marks[kube.IDLE_ANNOTATION] = str(idle_timeout_seconds)
    return marks


def time_of(obj: KubeObject, annotation: str) -> datetime | None:
    """Return the time that an annotation holds, or None if it holds none."""
    try:
        time = datetime.fromisoformat(kube.get_annotations(obj)[annotation])
    except (KeyError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def created_at(obj: KubeObject) -> datetime:
    """Return when the object was made; whole seconds."""
    return datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


def touched_at(obj: KubeObject) -> datetime:
    """Return when somebody last worked on making what this object is of: made, applied, or confirmed it."""
    times = [time_of(obj, one) for one in (kube.APPLIED_AT_ANNOTATION, kube.CONFIRMED_ANNOTATION)]
    return max([created_at(obj), *(time for time in times if time is not None)])


def ttl_ends_at(pod: KubeObject) -> datetime:
    """Return when the sandbox ends unless it is renewed, however much it is used."""
    return time_of(pod, kube.EXPIRES_ANNOTATION) or FOR_EVER


def idle_timeout(pod: KubeObject) -> timedelta | None:
    """Return how long the sandbox may stay unused; None: for ever."""
    value = kube.get_annotations(pod).get(kube.IDLE_ANNOTATION, "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < len("1000000000") else 0
    return timedelta(seconds=seconds) if seconds else None


def used_at(pod: KubeObject) -> datetime:
    """Return when the sandbox was last used, as far as its Pod knows."""
    return max(created_at(pod), time_of(pod, kube.USED_ANNOTATION) or created_at(pod))


def ends_at(pod: KubeObject, used: datetime | None = None) -> datetime:
    """Return when the sandbox ends if nobody renews or uses it; `used`: a use that the Pod does not know of."""
    idle = idle_timeout(pod)
    if idle is None:
        return ttl_ends_at(pod)
    return min(ttl_ends_at(pod), max(used_at(pod), used or used_at(pod)) + idle)


def expires_at(pod: KubeObject, used: datetime | None = None) -> str | None:
    """Return `ends_at` as an RFC 3339 time in whole seconds, rounded up; None: never."""
    end = ends_at(pod, used)
    if end == FOR_EVER:
        return None
    whole = end.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=bool(end.microsecond))
    return whole.isoformat().replace("+00:00", "Z")


def ended_at(pod: KubeObject) -> datetime:
    """Return when a Pod that has ended did so: its last container's end, else the last change of its conditions."""
    status = pod.get("status") or {}
    times = [
        ((one.get("state") or {}).get("terminated") or {}).get("finishedAt")
        for one in status.get("containerStatuses") or []
    ]
    times = [time for time in times if time] or [
        one.get("lastTransitionTime") for one in status.get("conditions") or []
    ]
    return max([datetime.fromisoformat(time) for time in times if time], default=created_at(pod))
