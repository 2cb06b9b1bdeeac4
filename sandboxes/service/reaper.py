"""The reaper: deletes what has expired, has ended long ago, or was left behind.

Any number of processes may do this at once. Each object is deleted only as the very version that was judged
(`uid` and `resourceVersion` preconditions, kubectl.md 15), and whoever renews, uses, completes or confirms a sandbox
changes its Pod: so what was rescued a moment ago stays.
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

# Sandboxes deleted at the same time: requests come first.
AT_ONCE = 2


class Reaper:
    """Reaps one cluster.

    `locks`: those of the requests, so that none works on a sandbox that is being deleted. `uses`: those that are not
    written yet.
    """

    def __init__(self, cluster: Cluster, settings: Settings, locks: Locks, uses: Uses, extras: Extras) -> None:
        self._cluster = cluster
        self._uses = uses
        self._extras = extras
        self._settings = settings
        self._locks = locks
        # Halves by sandbox and uid, and since when (loop time) they were seen as such.
        self._halves: dict[tuple[str, str], float] = {}
        # For each deletion: its kind, one of those of Doomed, or `leftover`.
        self.reaped: Signal[[str]] = Signal()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do a round every REAPER_INTERVAL seconds for as long as the block runs."""
        task = asyncio.create_task(self._keep_reaping())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_reaping(self) -> None:
        while True:
            # Replicas that were started together don't reap together.
            await asyncio.sleep(self._settings.reaper_interval * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
            try:
                await self.round(dry_run=self._settings.reaper_dry_run, halves_must_last=True)
            except ProvisionerError as error:
                logger.warning("the reaper could not do its round: %s\n%s", error, error.detail)
            except Exception:
                logger.exception("the reaper could not do its round")

    async def round(self, *, dry_run: bool, halves_must_last: bool = False) -> list[str]:
        """Delete what is due; return a line for each deletion, or with `dry_run` for each that would be.

        What a template brought for a sandbox that is gone is due, too. Raises as `due` does.
        """
        due = await self.due(halves_must_last=halves_must_last)
        if not dry_run:
            due = await self.reap(due)
        leftovers = await self._extras.remove_leftovers(self._settings.reaper_grace, dry_run=dry_run)
        if not dry_run:
            self._tell("leftover" for _ in leftovers)
        lines = [f"{one.sandbox_id}: {one.reason}" for one in due] + [f"{one}: its Pod is gone" for one in leftovers]
        if dry_run:
            for line in lines:
                logger.info("the reaper would delete %s", line)
        return lines

    async def due(self, *, halves_must_last: bool = False) -> list[Due]:
        """Return what is to be deleted now.

        `halves_must_last`: a half only when rounds have seen it as one for REAPER_GRACE seconds.
        Raises ProvisionerError if the cluster can't be read.
        """
        now = expiry.present()
        due = [
            one
            for one in due_of(await self._cluster.all_objects(), self._settings, now)
            if not self._is_in_use(one, now)
        ]
        return self._without_new_halves(due) if halves_must_last else due

    async def reap(self, due: list[Due]) -> list[Due]:
        """Delete what has not changed since it was judged; return those that this process ended, and no other did.

        What can't be deleted is logged.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def reap_in_turn(one: Due) -> bool:
            async with slots:
                return await self._reap(one)

        reaped = await asyncio.gather(*(reap_in_turn(one) for one in due))
        deleted = [one for one, is_gone in zip(due, reaped, strict=True) if is_gone]
        self._tell(one.kind for one in deleted)
        return deleted

    def _tell(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self.reaped.send(kind)

    def _is_in_use(self, due: Due, now: datetime) -> bool:
        pod = due.objects[0]
        used = self._uses.latest(pod)
        return used is not None and expiry.ends_at(pod, used) > now

    def _without_new_halves(self, due: list[Due]) -> list[Due]:
        now = asyncio.get_running_loop().time()
        halves = {(one.sandbox_id, one.objects[0]["metadata"]["uid"]): one for one in due if one.is_half}
        self._halves = {key: self._halves.get(key, now) for key in halves}
        new = [halves[key] for key, since in self._halves.items() if now - since < self._settings.reaper_grace]
        return [one for one in due if one not in new]

    async def _reap(self, due: Due) -> bool:
        """Delete what is due of one sandbox; whether this process ended it, by deleting the first of its objects.

        Of several that reap it at once, one does. What is left of it then is a half, and is reaped as such.
        """
        ended = False
        try:
            async with self._locks.hold(due.sandbox_id, self._cluster.deadlines.reaper_lock):
                if self._is_in_use(due, expiry.present()):  # since it was judged
                    return False
                # The view may be as old as LIVE_VIEW_MAX_AGE of one kind only, and no precondition is about the other.
                if due.is_half and None not in await self._cluster.look(due.sandbox_id):
                    logger.debug("sandbox %s is whole by now, and stays", due.sandbox_id)
                    return False
                for obj in due.objects:
                    # Gone already: another process was faster, or the answer to an earlier try was lost.
                    was_there = await self._cluster.delete_exactly(obj)
                    ended = ended or (was_there and obj is due.objects[0])
                    outcome = "deleted by the reaper" if was_there else "gone before the reaper came"
                    logger.info("sandbox %s: %s %s: %s", due.sandbox_id, obj["kind"], outcome, due.reason)
        except PreconditionFailed:
            logger.debug("sandbox %s was changed just now, and stays", due.sandbox_id)
        except ProvisionerError as error:
            logger.warning("sandbox %s could not be reaped: %s\n%s", due.sandbox_id, error, error.detail)
        return ended


Kind = Literal["expired", "idle", "ended", "half"]


@dataclass(frozen=True)
class Due:
    """What of one sandbox is to be deleted: these very versions, in this order.

    One of `kind` "half" was never completed, or has lost its other half a moment ago; nothing in it tells which.
    """

    sandbox_id: str
    reason: str
    objects: tuple[KubeObject, ...]
    kind: Kind

    @property
    def is_half(self) -> bool:
        """Whether it is there only by half."""
        return self.kind == "half"


def due_of(objects: Iterable[KubeObject], settings: Settings, now: datetime) -> list[Due]:
    """Return, sorted by id, what is to be deleted of these Pods and Services, which are all that there are."""
    sandboxes: dict[str, dict[str, KubeObject]] = {}
    for obj in objects:
        sandbox_id = kube.sandbox_id_of(obj)
        if sandbox_id is not None:
            sandboxes.setdefault(sandbox_id, {})[obj["kind"]] = obj
    found = []
    for sandbox_id, of_it in sorted(sandboxes.items()):
        pod, service = of_it.get("Pod"), of_it.get("Service")
        ending = None if pod is None else reason_to_end(pod, settings, now)
        half = None if ending else reason_of_half(pod, service, settings, now)
        kind, reason = ending or ("half", half)
        if reason:
            # The Pod first: without it nothing is left that could do anything, and its Service is a half.
            ours = [one for one in (pod, service) if one is not None and _is_ours(one)]
            found.append(Due(sandbox_id, reason, tuple(ours), kind))
    return found


def reason_to_end(pod: KubeObject, settings: Settings, now: datetime) -> tuple[Kind, str] | None:
    """Return why this Pod's life is over, as a kind and in words, or None if it is not."""
    if not _is_ours(pod):
        return None
    if expiry.ttl_ends_at(pod) <= now:
        return "expired", f"it expired at {expiry.text_of(expiry.ttl_ends_at(pod))}"
    if expiry.ends_at(pod) <= now:
        return "idle", f"it was not used since {expiry.text_of(expiry.used_at(pod))}"
    if has_ended(pod) and expiry.ended_at(pod) + timedelta(seconds=settings.ended_ttl) <= now:
        return "ended", f"it ended at {expiry.text_of(expiry.ended_at(pod))}"
    return None


def reason_of_half(pod: KubeObject | None, service: KubeObject | None, settings: Settings, now: datetime) -> str | None:
    """Return why a Pod without a Service, or the other way round, is to be deleted, or None if it is not."""
    there = [one for one in (pod, service) if one is not None]
    if len(there) != 1 or not _is_ours(there[0]):
        return None
    changed_at = expiry.touched_at(there[0])
    if changed_at + timedelta(seconds=settings.reaper_grace) > now:
        return None
    return f"its {'Service' if service is None else 'Pod'} is missing"


def _is_ours(obj: KubeObject) -> bool:
    """Whether we may delete it, and nobody has yet."""
    return kube.is_managed(obj) and not kube.is_terminating(obj)
