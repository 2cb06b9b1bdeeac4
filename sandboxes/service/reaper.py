"""Deletes sandboxes that are expired, idle, ended or incomplete, and leftover template objects.

Any number of processes may run it concurrently. Each delete has `uid` and `resourceVersion` preconditions
(kubectl.md 15). Renewing, using, completing or confirming a sandbox changes its Pod, so the delete then fails.

A lifetime is judged by this service's clock, which set it. REAPER_GRACE and ENDED_TTL begin at times of other machines'
clocks, so the rounds of a running service measure how long they see a sandbox in that state. A single round
(`provisioner.py reap`) takes the API server's time. Only where that can't be measured it goes by its own clock, and
deletes as much too early as that clock is ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import PreconditionFailed, ProvisionerError
from sandboxes.status.reasons import has_ended
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import datetime

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.keepalive import Uses
    from sandboxes.service.locks import Locks
    from sandboxes.service.template_objects import Extras
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# Sandboxes deleted concurrently; low, to leave kubectl processes to requests.
AT_ONCE = 2


class Reaper:
    """Reaps one cluster.

    `locks` are shared with requests, so that no request works on a sandbox that is being deleted. `uses` has uses that
    the Pods' annotations do not show yet.
    """

    def __init__(self, cluster: Cluster, settings: Settings, locks: Locks, uses: Uses, extras: Extras) -> None:
        self._cluster = cluster
        self._uses = uses
        self._extras = extras
        self._settings = settings
        self._locks = locks
        # Loop time at which an incomplete or ended sandbox was first seen, by what identifies it in this state.
        self._since: dict[tuple[str | None, ...], float] = {}
        # Sent for each deletion, with its Kind or "leftover".
        self.reaped: Signal[[str]] = Signal()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run a round every REAPER_INTERVAL seconds until the block ends."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # Jitter, so that replicas started together do not reap at the same time.
            await asyncio.sleep(self._settings.reaper_interval * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
            try:
                await self.round(dry_run=self._settings.reaper_dry_run, halves_must_last=True)
            except ProvisionerError as error:
                logger.warning("the reaper's round failed: %s\n%s", error, error.detail)
            except Exception:
                logger.exception("the reaper's round failed")

    async def round(
        self, *, dry_run: bool, halves_must_last: bool = False, reached: datetime | None = None
    ) -> list[str]:
        """Delete all due sandboxes and leftover template objects; return one line for each deletion.

        `reached`: a time that the API server's clock has reached, for what begins at times of other machines.
        `dry_run` deletes nothing and returns the lines. Raises the errors of `due`.
        """
        due = await self.due(halves_must_last=halves_must_last, reached=reached)
        if not dry_run:
            due = await self.reap(due)
        leftovers = await self._extras.remove_leftovers(
            self._settings.reaper_grace, dry_run=dry_run, must_last=halves_must_last, reached=reached
        )
        if not dry_run:
            self._report("leftover" for _ in leftovers)
        lines = [f"{one.sandbox_id}: {one.reason}" for one in due] + [f"{one}: its Pod is gone" for one in leftovers]
        if dry_run:
            for line in lines:
                logger.info("the reaper would delete %s", line)
        return lines

    async def due(self, *, halves_must_last: bool = False, reached: datetime | None = None) -> list[Due]:
        """Return the sandboxes to delete now.

        `halves_must_last` includes an incomplete sandbox only after rounds have seen it unchanged for REAPER_GRACE
        seconds, and an ended one only after ENDED_TTL seconds, by what rounds have seen or by the API server's clock.
        Raises ProvisionerError if the cluster can't be read.
        """
        now = expiry.present()
        since = expiry.FOR_EVER if halves_must_last else reached
        due = [
            one
            for one in due_of(await self._cluster.all_objects(), self._settings, now, since=since)
            if not self._is_in_use(one, now)
        ]
        return self._lasting(due) if halves_must_last else due

    async def reap(self, due: list[Due]) -> list[Due]:
        """Delete the sandboxes that have not changed since `due`; return those that this process deleted.

        Failures are logged, not raised.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def reap_in_turn(one: Due) -> bool:
            async with slots:
                return await self._reap(one)

        reaped = await asyncio.gather(*(reap_in_turn(one) for one in due))
        deleted = [one for one, is_gone in zip(due, reaped, strict=True) if is_gone]
        self._report(one.kind for one in deleted)
        return deleted

    def _report(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self.reaped.send(kind)

    def _is_in_use(self, due: Due, now: datetime) -> bool:
        """Whether a use that is not written yet keeps the sandbox; nothing uses one that has ended."""
        if due.kind == "ended":
            return False
        pod = due.objects[0]
        used = self._uses.latest(pod)
        return used is not None and expiry.ends_at(pod, used) > now

    def _lasting(self, due: list[Due]) -> list[Due]:
        """Return those of `due` that are expired or idle, or that rounds have seen in their state for long enough."""
        now = asyncio.get_running_loop().time()
        reached = self._cluster.server_clock.at_least()
        states = {_state_of(one): one for one in due if one.kind in ("ended", "half")}
        self._since = {state: self._since.get(state, now) for state in states}
        ended_ttl = timedelta(seconds=self._settings.ended_ttl)
        lasting = []
        for state, one in states.items():
            must_last = self._settings.reaper_grace if one.is_half else self._settings.ended_ttl
            if any(map(kube.is_refused, one.objects)):  # its rollback may be at work
                must_last = max(must_last, self._cluster.deadlines.marked)
            is_old = one.kind == "ended" and reached and expiry.ended_at(one.objects[0]) + ended_ttl <= reached
            if is_old or now - self._since[state] >= must_last:
                lasting.append(one)
        return [one for one in due if one.kind not in ("ended", "half") or one in lasting]

    async def _reap(self, due: Due) -> bool:
        """Delete one sandbox; return whether this process deleted its first object, which at most one process does.

        If a later delete fails, the rest is an incomplete sandbox, which a later round reaps.
        """
        ended = False
        try:
            async with self._locks.hold(due.sandbox_id, self._cluster.deadlines.reaper_lock):
                if self._is_in_use(due, expiry.present()):  # used since `due` was computed
                    return False
                # The view may be as old as LIVE_VIEW_MAX_AGE of one kind only, and no precondition is about the other.
                if due.is_half and await self._is_whole(due.sandbox_id):
                    logger.debug("sandbox %s is whole by now, and stays", due.sandbox_id)
                    return False
                for obj in due.objects:
                    # False if another process deleted it, or an earlier try did and its response was lost.
                    was_there = await self._cluster.delete_exactly(obj)
                    ended = ended or (was_there and obj is due.objects[0])
                    outcome = "deleted by the reaper" if was_there else "already gone"
                    logger.info("sandbox %s: %s %s: %s", due.sandbox_id, obj["kind"], outcome, due.reason)
        except PreconditionFailed:
            logger.debug("sandbox %s has just changed and is kept", due.sandbox_id)
        except ProvisionerError as error:
            logger.warning("sandbox %s could not be reaped: %s\n%s", due.sandbox_id, error, error.detail)
        return ended

    async def _is_whole(self, sandbox_id: str) -> bool:
        pod, service = await self._cluster.look(sandbox_id)
        if pod is None or kube.is_refused(pod):
            return False
        return kube.is_behind_gateway(pod) or (service is not None and not kube.is_refused(service))


Kind = Literal["expired", "idle", "ended", "half"]


@dataclass(frozen=True)
class Due:
    """One sandbox to delete: its `objects`, in these versions and this order.

    Kind "half" is a Pod without the Service that it needs or vice versa: either never completed, or just losing its
    other object.
    """

    sandbox_id: str
    reason: str
    objects: tuple[KubeObject, ...]
    kind: Kind

    @property
    def is_half(self) -> bool:
        """Whether the Pod or the Service is missing."""
        return self.kind == "half"


def _state_of(due: Due) -> tuple[str | None, ...]:
    """Return what identifies a sandbox as long as it stays ended or incomplete, and no create works on it."""
    first = due.objects[0]
    marks = kube.get_annotations(first)
    writes = (kube.APPLIED_AT_ANNOTATION, kube.COMPLETED_ANNOTATION, kube.CONFIRMED_ANNOTATION)
    return due.kind, due.sandbox_id, first["metadata"]["uid"], *(marks.get(one) for one in writes)


def due_of(
    objects: Iterable[KubeObject], settings: Settings, now: datetime, *, since: datetime | None = None
) -> list[Due]:
    """Return the sandboxes to delete, sorted by id. `objects` must be all Pods and Services of the cluster.

    `since`: the time by which one must have been ended or incomplete for long enough, instead of `now`.
    """
    sandboxes: dict[str, dict[str, KubeObject]] = {}
    for obj in objects:
        sandbox_id = kube.sandbox_id_of(obj)
        if sandbox_id is not None:
            sandboxes.setdefault(sandbox_id, {})[obj["kind"]] = obj
    found = []
    for sandbox_id, of_it in sorted(sandboxes.items()):
        pod, service = of_it.get("Pod"), of_it.get("Service")
        since = since or now
        ending = None if pod is None else reason_to_end(pod, settings, now, ended_by=since)
        half = None if ending else reason_of_half(pod, service, settings, since)
        kind, reason = ending or ("half", half)
        if reason:
            # The Pod first: that stops the sandbox, and a remaining Service is reaped as incomplete.
            deletable = [one for one in (pod, service) if one is not None and _is_deletable(one)]
            found.append(Due(sandbox_id, reason, tuple(deletable), kind))
    return found


def reason_to_end(pod: KubeObject, settings: Settings, now: datetime, *, ended_by: datetime) -> tuple[Kind, str] | None:
    """Return the kind and the reason for deleting this Pod, or None to keep it.

    `ended_by`: the time by which an ended one must have been so for ENDED_TTL seconds.
    """
    if not _is_deletable(pod):
        return None
    if expiry.ttl_ends_at(pod) <= now:
        return "expired", f"it expired at {expiry.text_of(expiry.ttl_ends_at(pod))}"
    if expiry.ends_at(pod) <= now:
        return "idle", f"it was not used since {expiry.text_of(expiry.used_at(pod))}"
    if has_ended(pod) and expiry.ended_at(pod) + timedelta(seconds=settings.ended_ttl) <= ended_by:
        return "ended", f"it ended at {expiry.text_of(expiry.ended_at(pod))}"
    return None


def reason_of_half(pod: KubeObject | None, service: KubeObject | None, settings: Settings, now: datetime) -> str | None:
    """Return the reason for deleting a Pod without a Service, or vice versa; None to keep it.

    It must be unchanged for REAPER_GRACE seconds. A rollback that was cut off leaves objects that it has marked; these
    are as good as missing. A Pod that was made for the gateway needs no Service, and does not depend on one, whatever
    SANDBOX_ACCESS says now: another process may serve its URL.
    """
    there = [one for one in (pod, service) if one is not None]
    if pod is not None and kube.is_behind_gateway(pod):
        there = [pod] if kube.is_refused(pod) else []
    marked = [one for one in there if kube.is_refused(one)]
    if marked:
        marked_at = max(expiry.time_of(one, kube.REFUSED_ANNOTATION) or expiry.touched_at(one) for one in marked)
        is_old = marked_at + timedelta(seconds=max(settings.reaper_grace, DEADLINES.marked)) <= now
        return "its create was refused" if is_old else None
    if len(there) != 1 or not _is_deletable(there[0]):
        return None
    changed_at = expiry.touched_at(there[0])
    if changed_at + timedelta(seconds=settings.reaper_grace) > now:
        return None
    return f"its {'Service' if service is None else 'Pod'} is missing"


def _is_deletable(obj: KubeObject) -> bool:
    """Whether this service manages the object and it is not being deleted yet."""
    return kube.is_managed(obj) and not kube.is_being_deleted(obj)
