"""Waits until a sandbox is usable, or until it is clear that it won't be.

One task watches one sandbox, however many callers wait for it. While the live view may answer, it is woken by changes
and starts no process; else it looks once a second. Knows nothing of requests: whoever waits no longer is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import ClusterRefused, ProvisionerError, SandboxNotFound
from sandboxes.models.responses import WaitedResponse
from sandboxes.service.url_probe import Reach, UrlProber
from sandboxes.status.reasons import HOPELESS
from sandboxes.status.response import answer_for

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.models.responses import SandboxResponse
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Waiter:
    """One sandbox that is waited for: what is known of it, and for how long."""

    sandbox_id: str
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    callers: int = 0
    # What was seen last, and why it could not be seen since.
    seen: WaitedResponse | None = None
    failure: ProvisionerError | None = None
    # The Pod that the rest is about; loop times.
    uid: str = ""
    ready_since: float | None = None
    was_reached: bool = False
    unschedulable_since: float | None = None
    events_due: float | None = None
    events: asyncio.Task[None] | None = None
    failed_mount: KubeObject | None = None

    def meet(self, pod: KubeObject) -> None:
        """Forget what was known of another Pod of the same name."""
        uid = pod["metadata"]["uid"]
        if uid != self.uid:
            self.uid, self.was_reached, self.failed_mount = uid, False, None
            self.ready_since = self.unschedulable_since = self.events_due = None


class ReadinessWaiter:
    """Who waits for which sandbox of one cluster."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._deadlines = cluster.deadlines
        self._urls = UrlProber(cluster.deadlines)
        self._waiters: dict[str, tuple[_Waiter, asyncio.Task[WaitedResponse]]] = {}
        self._is_released = False
        # Five hundred Pods whose images are being pulled look at their Events one after another.
        self._events_turn = asyncio.Lock()
        cluster.changed.connect(self._on_change)

    async def until_usable(self, answer: SandboxResponse, until: float) -> WaitedResponse:
        """Return the sandbox as soon as it is usable or can't become so, and at `until` (loop time) as it is then.

        `answer`: what is known of it. Raises SandboxNotFound if it is deleted meanwhile, and what kept the cluster from
        answering if that is so at `until`.
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
        """Have all who wait answered at once with what is known, and let nobody wait any more."""
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
            task = asyncio.create_task(self._keep(waiter), name=f"wait for sandbox {sandbox_id}")
            # Whoever waited for it may be gone when it fails.
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

    async def _keep(self, waiter: _Waiter) -> WaitedResponse:
        """Watch until there is nothing left to wait for."""
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
                    answer = answer_for(pod, service, self._settings)
                    if pod is None or answer is None:
                        raise SandboxNotFound(waiter.sandbox_id)
                    outcome = await self._outcome(waiter, pod, answer)
                    if outcome is not None:
                        return outcome
                    if waiter.ready_since is not None and not waiter.was_reached:
                        pause = self._deadlines.url_pause
                await _set_within(waiter.changed, pause)
        finally:
            if waiter.events is not None:
                waiter.events.cancel()

    async def _look(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return what there is, from the view where it may answer; a miss is confirmed."""
        pair = self._cluster.seen(sandbox_id)
        if answer_for(*pair, self._settings) is not None:
            return pair
        async with within(self._deadlines.read):
            return await self._cluster.look(sandbox_id)

    async def _outcome(self, waiter: _Waiter, pod: KubeObject, answer: SandboxResponse) -> WaitedResponse | None:
        """Return the answer if there is nothing left to wait for."""
        waiter.meet(pod)
        waiter.seen = waited(answer)
        if answer.ready:
            return await self._outcome_of_url(waiter, answer)
        waiter.ready_since = None
        if answer.reason in HOPELESS or answer.status in ("Failed", "Succeeded"):
            return waiter.seen
        if self._is_unschedulable_for_long(waiter, pod):
            return waiter.seen
        self._look_for_failed_mount(waiter, pod)
        if waiter.failed_mount is not None:
            return waited(answer, reason=waiter.failed_mount["reason"], message=waiter.failed_mount.get("message"))
        return None

    async def _outcome_of_url(self, waiter: _Waiter, answer: SandboxResponse) -> WaitedResponse | None:
        if waiter.ready_since is None:
            waiter.ready_since = _now()
        reach = await self._urls.ask(answer.sandbox_url)
        if reach is Reach.ANSWERS:
            return waited(answer, url_checked=True)
        waiter.was_reached = waiter.was_reached or reach is Reach.NOT_YET
        if not waiter.was_reached and _now() - waiter.ready_since >= self._deadlines.url_unreached:
            return waiter.seen
        return None

    def _is_unschedulable_for_long(self, waiter: _Waiter, pod: KubeObject) -> bool:
        """Whether no node has been right for FAIL_FAST_AFTER, by the Pod's own time or since we have seen it."""
        since = _unschedulable_since(pod)
        if since is None:
            waiter.unschedulable_since = None
            return False
        if waiter.unschedulable_since is None:
            waiter.unschedulable_since = _now()
        told = (datetime.now(UTC) - since).total_seconds()
        return max(told, _now() - waiter.unschedulable_since) >= self._settings.fail_fast_after

    def _look_for_failed_mount(self, waiter: _Waiter, pod: KubeObject) -> None:
        """Have the Pod's Events looked at beside, if it is time; what they tell wakes the vigil."""
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
            async with self._events_turn, within(self._deadlines.read):
                # Until it was its turn, the container may have been created.
                events = [] if waiter.events_due is None else await self._cluster.events_of(pod)
        except ProvisionerError as error:
            # Without the right to read Events a wait lasts longer, and that is all.
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
    """Return what a caller who waited is told; `reason` and `message` if they say more than the Pod."""
    told = answer.model_dump(exclude={"url_checked"})
    if reason is not None:
        told |= {"reason": reason, "message": message}
    return WaitedResponse(**told, url_checked=url_checked)


def _unschedulable_since(pod: KubeObject) -> datetime | None:
    """Return since when the scheduler finds no node (record: pod-unschedulable); None if it does not say so."""
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
