"""Waits until a sandbox is usable or can't become usable.

One task watches a sandbox for all callers that wait for it. While the live view is fresh, changes wake the task and no
process is started; otherwise it polls once a second. Callers stop waiting by cancellation.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import ClusterRefused, ProvisionerError, SandboxNotFound
from sandboxes.models.responses import WaitedResponse
from sandboxes.service.url_probe import Reach, UrlProber
from sandboxes.status.reasons import HOPELESS
from sandboxes.status.response import answer_for

if TYPE_CHECKING:
    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.models.responses import SandboxResponse
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Waiter:
    """The state of one awaited sandbox, shared by its callers."""

    sandbox_id: str
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    callers: int = 0
    # The last response, and the error of a later failed read.
    seen: WaitedResponse | None = None
    failure: ProvisionerError | None = None
    # The fields below belong to the Pod with this uid. Times are loop times.
    uid: str = ""
    ready_since: float | None = None
    was_reached: bool = False
    unschedulable_since: float | None = None
    events_due: float | None = None
    events: asyncio.Task[None] | None = None
    failed_mount: KubeObject | None = None

    def meet(self, pod: KubeObject) -> None:
        """Reset the state if this is another Pod than before."""
        uid = pod["metadata"]["uid"]
        if uid != self.uid:
            self.uid, self.was_reached, self.failed_mount = uid, False, None
            self.ready_since = self.unschedulable_since = self.events_due = None


class ReadinessWaiter:
    """Waits for sandboxes of one cluster."""

    def __init__(self, cluster: Cluster, accesses: Accesses) -> None:
        self._cluster = cluster
        self._accesses = accesses
        self._deadlines = cluster.deadlines
        self._urls = UrlProber(cluster.deadlines)
        self._waiters: dict[str, tuple[_Waiter, asyncio.Task[WaitedResponse]]] = {}
        self._is_released = False
        # Serialises the reads of Events: hundreds of Pods may be pulling images at once.
        self._events_lock = asyncio.Lock()
        cluster.changed.connect(self._on_change)

    async def until_usable(self, answer: SandboxResponse, until: float) -> WaitedResponse:
        """Return the sandbox once it is usable or can't become usable, or its current state at `until` (loop time).

        `answer` is its last known response. Raises SandboxNotFound if it is deleted meanwhile, and the cluster's error
        if the cluster can't be read at `until`.
        """
        if self._is_released:
            return waited(answer)
        waiter, task = self._join(answer.sandbox_id)
        try:
            await asyncio.wait({task}, timeout=max(until - _now(), 0.0))
            if task.done() and not task.cancelled():
                return task.result()
            if waiter.failure is not None:
                raise waiter.failure
            return waiter.seen or waited(answer)
        finally:
            self._leave(waiter, task)

    async def release(self) -> None:
        """Return the last known state to all callers at once, now and from now on."""
        self._is_released = True
        tasks = [task for _, task in self._waiters.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._urls.close()

    def _join(self, sandbox_id: str) -> tuple[_Waiter, asyncio.Task[WaitedResponse]]:
        known = self._waiters.get(sandbox_id)
        if known is None or known[1].done():
            waiter = _Waiter(sandbox_id)
            task = asyncio.create_task(self._watch(waiter), name=f"wait for sandbox {sandbox_id}")
            # Retrieves the exception, since the callers may be gone when the task fails.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            known = self._waiters[sandbox_id] = (waiter, task)
        known[0].callers += 1
        return known

    def _leave(self, waiter: _Waiter, task: asyncio.Task[WaitedResponse]) -> None:
        waiter.callers -= 1
        if not waiter.callers:
            task.cancel()
            if self._waiters.get(waiter.sandbox_id) == (waiter, task):
                del self._waiters[waiter.sandbox_id]

    def _on_change(self, kind: str, name: str) -> None:
        known = self._waiters.get(kube.id_in_name(kind, name))
        if known is not None:
            known[0].changed.set()

    async def _watch(self, waiter: _Waiter) -> WaitedResponse:
        """Check the sandbox on every change or pause until there is an outcome."""
        try:
            while True:
                waiter.changed.clear()
                pause = self._deadlines.look
                try:
                    pod, service = await self._look(waiter.sandbox_id)
                except ProvisionerError as error:
                    waiter.failure = error
                else:
                    waiter.failure = None
                    answer = answer_for(pod, service, self._accesses)
                    if pod is None or answer is None:
                        raise SandboxNotFound(waiter.sandbox_id)
                    outcome = await self._outcome(waiter, pod, service, answer)
                    if outcome is not None:
                        return outcome
                    if waiter.ready_since is not None and not waiter.was_reached:
                        pause = self._deadlines.url_pause
                await _set_within(waiter.changed, pause)
        finally:
            if waiter.events is not None:
                waiter.events.cancel()

    async def _look(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the Pod and the Service, from the live view if they make a sandbox, else from the cluster."""
        pair = self._cluster.seen(sandbox_id)
        if answer_for(*pair, self._accesses) is not None:
            return pair
        async with within(self._deadlines.read):
            return await self._cluster.look(sandbox_id)

    async def _outcome(
        self, waiter: _Waiter, pod: KubeObject, service: KubeObject | None, answer: SandboxResponse
    ) -> WaitedResponse | None:
        """Return the final response, or None while it is worth waiting."""
        waiter.meet(pod)
        waiter.seen = waited(answer)
        if answer.ready:
            url = self._accesses.of(pod, service).probed_url(pod, service)
            return await self._outcome_of_url(waiter, url, answer)
        waiter.ready_since = None
        if answer.reason in HOPELESS or answer.status in ("Failed", "Succeeded"):
            return waiter.seen
        if self._is_unschedulable_for_long(waiter, pod):
            return waiter.seen
        self._look_for_failed_mount(waiter, pod)
        if waiter.failed_mount is not None:
            return waited(answer, reason=waiter.failed_mount["reason"], message=waiter.failed_mount.get("message"))
        return None

    async def _outcome_of_url(self, waiter: _Waiter, url: str | None, answer: SandboxResponse) -> WaitedResponse | None:
        if waiter.ready_since is None:
            waiter.ready_since = _now()
        reach = Reach.NOT_REACHED if url is None else await self._urls.ask(url)
        if reach is Reach.ANSWERS:
            return waited(answer, url_checked=True)
        waiter.was_reached = waiter.was_reached or reach is Reach.NOT_YET
        if not waiter.was_reached and _now() - waiter.ready_since >= self._deadlines.url_unreached:
            return waiter.seen
        return None

    def _is_unschedulable_for_long(self, waiter: _Waiter, pod: KubeObject) -> bool:
        """Whether the Pod has been unschedulable for FAIL_FAST_AFTER seconds, as observed here or by its condition.

        The condition's time is the cluster's, so it is compared with a time that the cluster's clock has reached.
        """
        since = _unschedulable_since(pod)
        if since is None:
            waiter.unschedulable_since = None
            return False
        if waiter.unschedulable_since is None:
            waiter.unschedulable_since = _now()
        reached = self._cluster.server_clock.at_least()
        reported = 0.0 if reached is None else (reached - since).total_seconds()
        return max(reported, _now() - waiter.unschedulable_since) >= self._accesses.settings.fail_fast_after

    def _look_for_failed_mount(self, waiter: _Waiter, pod: KubeObject) -> None:
        """Start a read of the Pod's Events in the background, if due; a FailedMount wakes the waiter."""
        if not _is_creating(pod):
            waiter.events_due = waiter.failed_mount = None
            return
        if waiter.events_due is None:
            waiter.events_due = _now() + self._deadlines.events_first
        if _now() >= waiter.events_due and (waiter.events is None or waiter.events.done()):
            waiter.events = asyncio.create_task(self._read_events(waiter, pod))

    async def _read_events(self, waiter: _Waiter, pod: KubeObject) -> None:
        pause = self._deadlines.events_pause
        try:
            async with self._events_lock, within(self._deadlines.read):
                # The container may have been created while this task waited for the lock.
                events = [] if waiter.events_due is None else await self._cluster.events_of(pod)
        except ProvisionerError as error:
            # Without the right to read Events, a failed mount is only not detected early.
            logger.info("the Events of sandbox %s can't be read: %s", waiter.sandbox_id, error)
            if isinstance(error, ClusterRefused):
                pause = float("inf")
            events = []
        if waiter.events_due is not None:
            waiter.events_due = _now() + pause
        for event in events:
            if event.get("type") == "Warning" and event.get("reason") == "FailedMount":
                waiter.failed_mount = event
                waiter.changed.set()


def waited(
    answer: SandboxResponse, *, url_checked: bool = False, reason: str | None = None, message: str | None = None
) -> WaitedResponse:
    """Return the response to a caller who waited; a given `reason` and `message` replace the Pod's."""
    fields = answer.model_dump(exclude={"url_checked"})
    if reason is not None:
        fields |= {"reason": reason, "message": message}
    return WaitedResponse(**fields, url_checked=url_checked)


def _unschedulable_since(pod: KubeObject) -> datetime | None:
    """Return when the Pod became unschedulable (record: pod-unschedulable), or None if it is not."""
    scheduled = kube.condition_of(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    since = scheduled.get("lastTransitionTime")
    return None if since is None else datetime.fromisoformat(since)


def _is_creating(pod: KubeObject) -> bool:
    waiting = (kube.sandbox_container_status(pod).get("state") or {}).get("waiting") or {}
    return bool(waiting.get("reason") == "ContainerCreating")


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _now() -> float:
    return asyncio.get_running_loop().time()
