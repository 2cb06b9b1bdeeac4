"""Every limit of time in the service, with what it rests on. All values are seconds.

One frozen table, handed to whatever waits: a test that wants another limit makes another table.
`tests/unit/test_deadlines.py` holds the inequalities between them.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.errors import ClusterTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True)
class Deadlines:
    """Seconds, all of them; `…_pauses` are one after another, the last one over and over."""

    # Requests. A caller gives a create 30 s, a delete 15 s and a read 10 s: these end before, cleaning up included.
    body: float = 10.0
    create: float = 21.0
    delete: float = 12.0
    read: float = 8.0
    # A request that waits is answered within 25 s of its beginning; the rest is for the way.
    wait: float = 24.5
    # kubectl is ended before a read's time is over, which may take `drain`.
    diagnosis: float = 6.5
    # Running requests may take so long after the signal to stop.
    shutdown: float = 28.0

    # A failed create. What it made is deleted before its caller is answered, if that can be done within `undo`; else it
    # is tried again after each `settle_pause`, for `settle`. At the end of the process it may take `settle_finish`.
    undo: float = 5.0
    settle_pause: float = 2.0
    settle: float = 600.0
    settle_finish: float = 10.0
    # Another process's create of the same sandbox is this far at most between its Pod and its Service, mostly 12 ms.
    others_service: float = 1.0
    # How far the API server's clock may be behind ours; its times are whole seconds.
    clocks_differ: float = 10.0
    # Between looks at an object that is being deleted; a container has 5 s to end (manifests/sandbox).
    gone_pauses: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)

    # What a template brought goes after its Pod: looked at after each pause, for so long; then it is the reaper's.
    template_objects_pauses: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 5.0)
    template_objects: float = 600.0
    template_objects_lock: float = 60.0
    template_objects_finish: float = 5.0

    # The reaper looks for what templates left behind at least so often, and after Pods that had any.
    leftovers: float = 600.0
    # The reaper waits so long for a sandbox on which a request works; the next round looks again.
    reaper_lock: float = 5.0

    # A use is written at most once in `use_interval`, and `use_margin` before the sandbox would count as idle: time
    # enough for a slow API server. One that could not be written is tried again after `use_retry`.
    use_interval: float = 60.0
    use_margin: float = 10.0
    use_retry: float = 5.0
    use_finish: float = 5.0

    # Waiting until a sandbox is usable. Between two looks where no change wakes the waiter:
    look: float = 1.0
    # Between two tries of a URL. kube-proxy opens a node port once a second (measured), so one that could not be
    # connected to for two since the Pod was ready can't be reached from here.
    url_pause: float = 0.2
    url_unreached: float = 2.0
    url_connect: float = 1.0
    url_answer: float = 2.0
    # Only Events tell of a mount that fails (record: events-failed-mount), and each look at them is a process. A
    # container is mostly created within a second.
    events_first: float = 1.0
    events_pause: float = 2.5

    # Subscribers to events: how long one may wait for the informer, and how long before an end it is told.
    subscribe: float = 8.0
    expiring: float = 60.0
    # Silence after which a comment keeps the connection alive; how long what was sent may stay unread; and between
    # two looks whether the caller is still there, which aiohttp 3 does not tell.
    sse_comment: float = 15.0
    sse_write: float = 30.0
    hang_up: float = 0.25

    # For so long an apply of the NetworkPolicy counts: it may be deleted behind our back.
    policy_confirmed: float = 60.0

    # A probe of /readyz is answered within `ready`, whatever the cluster does; what was found is believed for so long.
    ready: float = 4.0
    ready_believed: float = 3.0
    # A cluster that hangs must not keep the service from starting.
    preflight: float = 10.0
    # One question of `check`; a cluster that takes longer is not ready.
    check: float = 10.0

    # kubectl. Any one call, the wait for a free process included; and one that needs no cluster (40 ms, measured).
    kubectl_call: float = 25.0
    kubectl_local: float = 10.0
    # For how long the rest of the output of a process that has ended is read.
    drain: float = 1.0
    # Credentials rotate (EKS: 15 minutes), and a process that was started ahead has read its own when it started.
    pool_age: float = 240.0
    pool_tick: float = 5.0
    # A batch is made no longer than would take `batch`, and is ended after `batch_limit`; an item waits for
    # `batch_patience` at most. So an item has its answer, and nothing of it runs any more, before a create's time is
    # over. What is tried alone after its batch failed is ended `batch_spare` before the batch is.
    batch: float = 8.0
    batch_limit: float = 12.0
    batch_patience: float = 8.0
    batch_spare: float = 1.0

    # The informer. A watch that fails is started again after these pauses; they begin anew where the view was up to
    # date for `watch_settled`.
    watch_pauses: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
    watch_settled: float = 10.0
    # How long the first watch after a failure lasts, in whole seconds. Its end shows that nothing was missed; API
    # servers also send a bookmark 2 s before (kubernetes/apiserver, storage/cacher).
    watch_catch_up: int = 3
    # A watch that has not ended so long after its time is silent. A credential plugin may take as long to start it.
    watch_silence: float = 25.0
    # For so long after a delete of ours, the Pod's deletion is ours; a call of kubectl ends long before.
    deletion_expected: float = 120.0
    # A container that ran so long is not in a crash loop (any more): the kubelet begins anew with its back-off then.
    # https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    crash_loop_over: float = 600.0

    # A file that was changed less than this before it was read may change again without a sign: file systems count
    # time in steps.
    file_step: float = 2.0
    # For so long after a kubeconfig could be read again, no other program's words are repeated: a kubectl that started
    # before may still speak.
    secrets_unreadable: float = 3600.0


DEADLINES = Deadlines()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bound the block; raises ClusterTimeout past `seconds`, after the block has cleaned up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        detail = f"not done within the {seconds:.1f} s that this request may take"
        raise ClusterTimeout(detail=detail) from error
