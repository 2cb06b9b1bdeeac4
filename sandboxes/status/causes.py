"""Finds the cause of a Pod's trouble where its Events know more than its status. Pure.

The kubelet reports an eviction by an Event first, and a container that exits with 0 on SIGTERM often leaves a Pod that
is `Succeeded`, without a reason (record: pod-evicted-ephemeral-succeeded). A container that a failed probe or hook
stopped is reported like one that ended by itself.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes.status.reasons import (
    PLAIN_ENDS,
    VAGUE,
    Trouble,
    cause_in,
    container_in,
    last_termination,
    of_pod_as_a_whole,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.objects import KubeObject

# Events after which the Pod is stopped, whatever its status says by then.
# Sources: pkg/kubelet/eviction, pkg/kubelet/active_deadline.go, pkg/kubelet/preemption, and the scheduler's and the
# taint eviction controller's, all in kubernetes/kubernetes.
_STOPPED = frozenset({"Evicted", "DeadlineExceeded", "Preempting", "Preempted", "TaintManagerEviction"})
# The taint eviction controller has changed its mind (record: events-node-lost-new).
_CANCELLED = "Cancelling deletion"

# The kubelet's Event when it stops a container to start it again (pkg/kubelet/kuberuntime).
PROBE_FAILED = re.compile(r"Container (?P<container>\S+) failed (?P<probe>liveness|startup) probe")

# Times of Events and of terminations are both the node's, in whole seconds.
_ROUNDING = timedelta(seconds=1)


def cause_of(pod: KubeObject, trouble: Trouble | None, events: Sequence[KubeObject]) -> Trouble | None:
    """Return why the Pod is not ready, by its own trouble and its Events, sorted oldest first; None for a ready one.

    An Event that the Pod is stopped goes first, then what its status says of the whole Pod, then an Event of why the
    kubelet stopped the container, then the status, and any other Event where the status is vague.
    """
    if trouble is None:
        return None
    whole, stopped = of_pod_as_a_whole(pod), _stopped(events)
    if stopped is not None and (whole is None or stopped.reason == "Evicted"):
        return Trouble(stopped.reason, stopped.message, exit_code=trouble.exit_code)
    if whole is not None:
        return trouble
    if trouble.reason in {*PLAIN_ENDS, "CrashLoopBackOff"}:
        return _killed(pod, trouble, events) or trouble
    if trouble.reason not in VAGUE:
        return trouble
    about = {trouble.container, None} if trouble.container else None
    return cause_in(one for one in events if about is None or container_in(one) in about) or trouble


def _stopped(events: Sequence[KubeObject]) -> Trouble | None:
    """Return the last Event of an eviction or the like; nothing starts a Pod again after it."""
    for event in reversed(events):
        reason, message = event.get("reason", ""), event.get("message") or ""
        if reason not in _STOPPED:
            continue
        if message.startswith(_CANCELLED):
            return None
        return Trouble(reason, shortened(message.strip()))
    return None


def _killed(pod: KubeObject, trouble: Trouble, events: Sequence[KubeObject]) -> Trouble | None:
    """Return the failed probe or hook for which the kubelet ended the container's last run, or None.

    An Event is about that run if it falls between its start and its end.
    """
    ended = last_termination(pod, trouble.container)
    if ended is None or not ended.get("startedAt") or not ended.get("finishedAt"):
        return None
    begin, end = (datetime.fromisoformat(ended[key]) for key in ("startedAt", "finishedAt"))
    for event in reversed(events):
        at = event.get("lastTimestamp")
        if at is None or not begin - _ROUNDING <= datetime.fromisoformat(at) <= end + _ROUNDING:
            continue
        message = event.get("message") or ""
        probed = PROBE_FAILED.match(message) if event.get("reason") == "Killing" else None
        if probed is not None and probed["container"] == trouble.container:
            return Trouble("Unhealthy", shortened(message), trouble.container, trouble.exit_code)
        if event.get("reason") == "FailedPostStartHook" and container_in(event) in (None, trouble.container):
            return Trouble("FailedPostStartHook", shortened(message), trouble.container, trouble.exit_code)
    return None
