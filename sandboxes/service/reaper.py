"""The reaper: every so often, deletes what has expired, has ended long ago, or was left behind.

Any number of processes may do this at once. Each object is deleted only as the very version that was judged
(`uid` and `resourceVersion` preconditions, kubectl.md 15), and whoever renews, uses, completes or confirms a sandbox
changes its Pod: so what was rescued a moment ago stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes.errors import PreconditionFailed, ProvisionerError
from sandboxes.reaping import Doomed, doomed_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from datetime import datetime

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.service.keepalive import Uses
    from sandboxes.service.locks import Locks
    from sandboxes.service.template_objects import Extras
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# Sandboxes deleted at the same time: requests come first.
AT_ONCE = 2

# Seconds that the reaper waits for one sandbox on which a request works; the next round looks again.
LOCK_SECONDS = 5.0


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
        self._listeners: list[Callable[[str], None]] = []

    def on_reaped(self, listener: Callable[[str], None]) -> None:
        """Have `listener(kind)` called for each deletion; kinds are those of Doomed, and `leftover`."""
        self._listeners.append(listener)

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
        doomed = await self.due(halves_must_last=halves_must_last)
        if not dry_run:
            doomed = await self.reap(doomed)
        leftovers = await self._extras.remove_leftovers(self._settings.reaper_grace, dry_run=dry_run)
        if not dry_run:
            self._tell("leftover" for _ in leftovers)
        lines = [f"{one.sandbox_id}: {one.reason}" for one in doomed] + [f"{one}: its Pod is gone" for one in leftovers]
        if dry_run:
            for line in lines:
                logger.info("the reaper would delete %s", line)
        return lines

    async def due(self, *, halves_must_last: bool = False) -> list[Doomed]:
        """Return what is to be deleted now.

        `halves_must_last`: a half only when rounds have seen it as one for REAPER_GRACE seconds.
        Raises ProvisionerError if the cluster can't be read.
        """
        now = expiry.present()
        doomed = [
            one
            for one in doomed_of(await self._cluster.all_objects(), self._settings, now)
            if not self._is_in_use(one, now)
        ]
        return self._without_new_halves(doomed) if halves_must_last else doomed

    async def reap(self, doomed: list[Doomed]) -> list[Doomed]:
        """Delete what has not changed since it was judged; return those that this process ended, and no other did.

        What can't be deleted is logged.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def reap_in_turn(one: Doomed) -> bool:
            async with slots:
                return await self._reap(one)

        reaped = await asyncio.gather(*(reap_in_turn(one) for one in doomed))
        deleted = [one for one, is_gone in zip(doomed, reaped, strict=True) if is_gone]
        self._tell(one.kind for one in deleted)
        return deleted

    def _tell(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            for listener in self._listeners:
                listener(kind)

    def _is_in_use(self, doomed: Doomed, now: datetime) -> bool:
        pod = doomed.objects[0]
        used = self._uses.latest(pod)
        return used is not None and expiry.ends_at(pod, used) > now

    def _without_new_halves(self, doomed: list[Doomed]) -> list[Doomed]:
        now = asyncio.get_running_loop().time()
        halves = {(one.sandbox_id, one.objects[0]["metadata"]["uid"]): one for one in doomed if one.is_half}
        self._halves = {key: self._halves.get(key, now) for key in halves}
        new = [halves[key] for key, since in self._halves.items() if now - since < self._settings.reaper_grace]
        return [one for one in doomed if one not in new]

    async def _reap(self, doomed: Doomed) -> bool:
        """Delete what is doomed of one sandbox; whether this process ended it, by deleting the first of its objects.

        Of several that reap it at once, one does. What is left of it then is a half, and is reaped as such.
        """
        ended = False
        try:
            async with self._locks.hold(doomed.sandbox_id, LOCK_SECONDS):
                if self._is_in_use(doomed, expiry.present()):  # since it was judged
                    return False
                for obj in doomed.objects:
                    # Gone already: another process was faster, or the answer to an earlier try was lost.
                    was_there = await self._cluster.delete_exactly(obj)
                    ended = ended or (was_there and obj is doomed.objects[0])
                    outcome = "deleted by the reaper" if was_there else "gone before the reaper came"
                    logger.info("sandbox %s: %s %s: %s", doomed.sandbox_id, obj["kind"], outcome, doomed.reason)
        except PreconditionFailed:
            logger.debug("sandbox %s was changed just now, and stays", doomed.sandbox_id)
        except ProvisionerError as error:
            logger.warning("sandbox %s could not be reaped: %s\n%s", doomed.sandbox_id, error, error.detail)
        return ended
