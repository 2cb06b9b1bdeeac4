"""All timeouts, intervals and backoff delays of the service, in seconds, with their reasons.

The table is frozen and injected, so a test can pass its own. `tests/unit/test_deadlines.py` checks how the values
relate to each other.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.errors import ClusterTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@dataclass(frozen=True)
class Deadlines:
    """Durations in seconds. `…_pauses` are successive delays; the last one repeats."""

    # Requests. Callers time out after 30 s (create), 15 s (delete) and 10 s (read); these limits include cleanup.
    body: float = 10.0
    create: float = 21.0
    delete: float = 12.0
    read: float = 8.0
    # A request with `wait` is answered within 25 s of its start; the difference is for the network.
    wait: float = 24.5
    # Kills kubectl before `read` expires; reading its remaining output may take `drain`.
    diagnosis: float = 6.5
    # Time for running requests to finish after SIGTERM.
    shutdown: float = 28.0

    # Rollback of a failed create. It is tried for `undo` before the response, then in the background every
    # `settle_pause` for `settle`. Shutdown waits `settle_finish` for it.
    undo: float = 5.0
    settle_pause: float = 2.0
    settle: float = 600.0
    settle_finish: float = 10.0
    # From the mark of a failed create's objects to the end of their deletion by name. Others wait as long before they
    # free such a name; a delete has the rest of `delete` left then.
    marked: float = 8.0
    # Maximum delay between Pod and Service when another process creates the same sandbox; typically 12 ms.
    others_service: float = 1.0
    # How far the clocks of one cluster's API servers may differ; their timestamps are whole seconds.
    clocks_differ: float = 10.0
    # A deletion counts as overdue so long after its end (service/lost.py). At least `clocks_differ`: another API server
    # may have set the end.
    overdue: float = 10.0
    # How long a measurement of the API server's clock is used: it may be set back.
    clock_measured: float = 600.0
    # Polling of an object that is being deleted; a container's grace period is 5 s (manifests/sandbox).
    gone_pauses: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)

    # Objects of a template are deleted after their Pod is gone. It is polled for `template_objects`; later, the reaper
    # deletes them.
    template_objects_pauses: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 5.0)
    template_objects: float = 600.0
    template_objects_lock: float = 60.0
    template_objects_finish: float = 5.0

    # Maximum interval between the reaper's searches for leftover template objects; a deleted Pod that had any triggers
    # one earlier.
    leftovers: float = 600.0
    # How long the reaper waits for a sandbox that a request has locked; the next round tries again.
    reaper_lock: float = 5.0

    # Last-used times are written at most once per `use_interval`, and `use_margin` before the sandbox would become
    # idle, to leave time for a slow API server. A failed write is retried after `use_retry`.
    use_interval: float = 60.0
    use_margin: float = 10.0
    use_retry: float = 5.0
    use_finish: float = 5.0

    # Readiness. Polling interval while no change wakes the waiter:
    look: float = 1.0
    # Between URL probes. kube-proxy opens node ports once a second (measured), so a port that refuses connections for
    # two seconds after the Pod became ready can't be reached from here.
    url_pause: float = 0.2
    url_unreached: float = 2.0
    url_connect: float = 1.0
    url_answer: float = 2.0
    # Only Events report a failed mount (record: events-failed-mount), and each read of them starts a process. Most
    # containers are created within a second.
    events_first: float = 1.0
    events_pause: float = 2.5

    # Event streams: maximum wait for the informer, and how long before the expiry `expiring` is sent.
    subscribe: float = 8.0
    expiring: float = 60.0
    # Interval of keep-alive comments; write timeout; interval of the check for a disconnected caller, which aiohttp 3
    # does not report.
    sse_comment: float = 15.0
    sse_write: float = 30.0
    hang_up: float = 0.25

    # How long diagnostics of a sandbox show why the cluster refused its last create.
    refusals_kept: float = 3600.0

    # How long an apply is not tried again after the right to patch was missing.
    patch_forbidden: float = 60.0

    # How long an applied NetworkPolicy is assumed to exist; another client may delete it.
    policy_confirmed: float = 60.0

    # /readyz responds within `ready`, whatever the cluster does; the result is cached for `ready_believed`.
    ready: float = 4.0
    ready_believed: float = 3.0
    # How long a review that found all rights is believed; each costs a process. Rights are rarely taken back.
    rights_believed: float = 300.0
    # How long `GET /api/clusters` waits for a look at a cluster before it answers with what is known.
    clusters_answer: float = 0.5
    # How long the API server's version is believed, and how soon it is asked for again after a failure.
    version_believed: float = 3600.0
    version_retry: float = 60.0
    # The same for its quotas, which change with each sandbox; without the right to read them, `quota_retry`. What was
    # read before a cluster hung is shown for `quota_kept`.
    quota_believed: float = 15.0
    quota_retry: float = 600.0
    quota_kept: float = 60.0
    # A cluster that hangs must not keep the service from starting.
    preflight: float = 10.0
    # One test of `check`; a cluster that takes longer is not ready.
    check: float = 10.0

    # kubectl: any call, including the wait for a free process; and a call without the cluster (measured: 40 ms).
    kubectl_call: float = 25.0
    kubectl_local: float = 10.0
    # How long a credential plugin, for which kubectl waited when it was ended, explains timeouts: requests that were
    # batched with that call end a little later.
    plugin_recent: float = 2.0
    # How long to read the remaining output of a process that has exited.
    drain: float = 1.0
    # Credentials rotate (EKS: 15 minutes), and a process started ahead has already read its own.
    pool_age: float = 240.0
    pool_tick: float = 5.0
    # How long the first processes are put off at a start, so that the lists of the live view get the CPU.
    pool_delay: float = 5.0
    # Starting a process takes 50 ms of CPU, which the calls need. The pause leaves a sequence of calls undisturbed.
    pool_pause: float = 0.02
    # Batches are sized to take `batch` and cancelled after `batch_limit`; an item waits at most `batch_patience` in the
    # queue. So each item is done or cancelled before a create times out. Items retried one by one after a failed batch
    # are cancelled `batch_spare` before the batch.
    batch: float = 8.0
    batch_limit: float = 12.0
    batch_patience: float = 8.0
    batch_spare: float = 1.0

    # The informer. Backoff of failed watches, reset after `watch_settled` without a failure.
    watch_pauses: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
    watch_settled: float = 10.0
    # Duration of the first watch after a failure: its normal end proves that no event was missed. Whole seconds. API
    # servers also send a bookmark 2 s before that (kubernetes/apiserver, storage/cacher).
    watch_catch_up: int = 3
    # A watch that outlives its timeout by this much is considered hung. A credential plugin may delay its start as
    # long.
    watch_silence: float = 25.0
    # A Pod deleted this soon after a delete request of the service counts as deleted by it; kubectl times out earlier.
    deletion_expected: float = 120.0
    # A container that ran this long is not in a crash loop: the kubelet has reset its back-off.
    # https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    crash_loop_over: float = 600.0

    # Interval of the check whether CLUSTERS_FILE has changed; when a refused version of it is tried again.
    clusters_poll: float = 5.0
    clusters_retry: float = 60.0
    # The gateway. Dials: within a cluster, a SYN is answered within a millisecond, and repeated after 1 and 3 s.
    gateway_dial: float = 5.0
    # How long an idle connection to a sandbox is kept: less than gunicorn (2 s) and uvicorn (5 s) keep it, since a
    # request that meets their close must not be sent again.
    gateway_idle: float = 1.0
    # Interval at which bytes that flow count as use; interval of the look whether any do.
    gateway_use: float = 30.0
    gateway_tick: float = 10.0
    # Interval at which it reads the file of the keys while anything is open. Each request reads it, too: a `stat`.
    gateway_keys: float = 1.0
    # How long the gateway waits for the close of a WebSocket that it ends, and for callers that take no more.
    gateway_close: float = 5.0
    # Time for running requests to finish at the end of the gateway.
    gateway_finish: float = 10.0
    # How long a caller may take for the head of a request: from the start of its connection for the first one, from its
    # first byte for the others.
    gateway_head: float = 30.0
    # How long a caller may be silent between requests.
    gateway_keepalive: float = 75.0
    # How long a caller may take nothing of the end of its last response.
    gateway_stuck: float = 300.0

    # Several clusters: before another round of the directory; before the first probe of a cluster that can't be
    # reached, and at most; how long a replica remembers where a sandbox is, if that cluster's live view has its Pod.
    fleet_round: float = 0.1
    fleet_probe: float = 0.5
    fleet_probe_most: float = 15.0
    fleet_remembered: float = 3600.0
    # A new Pod that the scheduler calls unschedulable for so long is made on another cluster; polling of a Pod that has
    # no node yet. A scheduler decides within a second; a cluster autoscaler looks for such Pods every 10 s and starts
    # nodes in minutes, which no create waits for.
    unscheduled: float = 5.0
    unscheduled_pauses: tuple[float, ...] = (0.05, 0.1, 0.2)
    # A file modified less than this before it was read may change again without a new mtime: file systems have coarse
    # timestamps.
    file_step: float = 2.0
    # How long the output of kubectl and credential plugins stays hidden after the kubeconfig became readable again: a
    # kubectl started earlier may still print.
    secrets_unreadable: float = 3600.0


DEADLINES = Deadlines()

# Loop time at which the request must be answered that this task works for.
_END: ContextVar[float] = ContextVar("end", default=float("inf"))


@contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Limit all steps of the block together to `seconds`: each may take what is `left`."""
    end = asyncio.get_running_loop().time() + seconds
    token = _END.set(min(end, _END.get()))
    try:
        yield
    finally:
        _END.reset(token)


def left(seconds: float) -> float:
    """Return `seconds`, or what is left of the request's `budget` if that is less; at least 0."""
    return max(0.0, min(seconds, _END.get() - asyncio.get_running_loop().time()))


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after `seconds` and raise ClusterTimeout once it has cleaned up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        detail = f"not done within the {seconds:.1f} s that this request may take"
        raise ClusterTimeout(detail=detail) from error
