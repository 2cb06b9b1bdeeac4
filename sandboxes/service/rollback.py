"""Rolling a failed create back: deletes what it made, and nothing that was there before or became somebody else's.

At once, before its caller is answered, if that can be done in time; else again and again until it is done or given up,
and then the reaper is the backstop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import PreconditionFailed, ProvisionerError
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.attempt import Attempt
    from sandboxes.service.locks import Locks
    from sandboxes.service.template_objects import Extras
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

Pair: TypeAlias = "tuple[KubeObject, KubeObject]"


class Clock(Protocol):
    """The time that passes between tries, in seconds."""

    def time(self) -> float:
        """Return the present, of a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so long."""
        ...


class LoopClock:
    """The running loop's own time."""

    def time(self) -> float:
        """See Clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)


class Rollback:
    """The failed creates of one cluster. One task at a time works on one id: `locks`."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        locks: Locks,
        template_objects: Extras,
        clock: Clock | None = None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._locks = locks
        self._template_objects = template_objects
        self._clock: Clock = clock or LoopClock()
        self._deadlines = cluster.deadlines
        # Failed creates whose callers have been told so, and of which something may still be there; by id.
        self._pending: dict[str, Attempt] = {}
        self._tasks = BackgroundTasks()

    @property
    def any_pending(self) -> bool:
        """Whether `is_pending` is true of any sandbox."""
        return bool(self._pending)

    def is_pending(self, sandbox_id: str) -> bool:
        """Whether what is there of this sandbox was made by a create that failed, and will be deleted."""
        return sandbox_id in self._pending

    def forget(self, sandbox_id: str) -> None:
        """Delete nothing more of this sandbox: a later create has made it, or returned it to a caller."""
        self._pending.pop(sandbox_id, None)

    async def roll_back(self, attempt: Attempt) -> Pair | None:
        """After a failed create: return the sandbox if it is whole and ours after all, else delete what it made.

        An apply that was cut off may have reached the server, or another process may have made the same sandbox. What
        can't be deleted within `undo` seconds is deleted later. The caller holds the lock of the id.
        """
        if not attempt.applied:
            return None
        try:
            async with within(self._deadlines.undo):
                return await self._try(attempt)
        except ProvisionerError as error:
            logger.warning(
                "sandbox %s: what a failed create made can't be deleted yet: %s", attempt.sandbox.sandbox_id, error
            )
        except asyncio.CancelledError:
            self._try_later(attempt)
            raise
        self._try_later(attempt)
        return None

    async def finish(self) -> None:
        """Give what still rolls back a while to end; the rest is the reaper's."""
        if not self._tasks:
            return
        await self._tasks.finish(self._deadlines.settle_finish)
        for sandbox_id in self._pending:
            logger.error("sandbox %s: what a failed create made may be left behind", sandbox_id)

    def _try_later(self, attempt: Attempt) -> None:
        self._pending[attempt.sandbox.sandbox_id] = attempt
        self._tasks.start(self._keep_trying(attempt))

    async def _keep_trying(self, attempt: Attempt) -> None:
        """Try until nothing of the refused create is left, or somebody has asked for the sandbox again."""
        sandbox_id = attempt.sandbox.sandbox_id
        end = self._clock.time() + self._deadlines.settle
        while self._pending.get(sandbox_id) is attempt:
            try:
                async with self._locks.hold(sandbox_id, self._deadlines.settle):
                    if self._pending.get(sandbox_id) is not attempt:
                        return
                    await self._try(attempt, refused=True)
                    del self._pending[sandbox_id]
                    return
            except ProvisionerError as error:
                if self._clock.time() >= end:
                    del self._pending[sandbox_id]
                    logger.exception(
                        "sandbox %s: what a failed create made may be left behind: %s\n%s",
                        sandbox_id,
                        error.public,
                        error.detail,
                    )
                    return
            await self._clock.sleep(self._deadlines.settle_pause)

    async def _try(self, attempt: Attempt, *, refused: bool = False) -> Pair | None:
        """Return the sandbox if it is whole and may stay; else delete what the attempt made of it.

        `refused`: its caller has been told that it failed.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        pod, service = await self._cluster.look(sandbox_id, urgent=True)
        if pod is not None and service is None and attempt.may_have_made(pod):
            # Whoever applied last bears the mark, so the Pod may be another process's, whose Service is on its way.
            await self._clock.sleep(self._deadlines.others_service)
            pod, service = await self._cluster.look(sandbox_id, urgent=True)
        while True:
            if pod is not None and service is not None and self._may_stay(attempt, pod, service, refused=refused):
                return pod, service
            try:
                await self._delete(attempt, pod, service)
            except PreconditionFailed:  # touched since it was read
                pod, service = await self._cluster.look(sandbox_id, urgent=True)
            else:
                await self._template_objects.undo(attempt.extras)
                return None

    def _may_stay(self, attempt: Attempt, pod: KubeObject, service: KubeObject, *, refused: bool) -> bool:
        if not attempt.is_made(pod, service, self._settings):
            return False
        return not refused or not attempt.may_have_made(pod)

    async def _delete(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> None:
        """Delete what this create made and nobody has touched since; raises PreconditionFailed if somebody did."""
        ours = [obj for obj in (pod, service) if obj is not None and attempt.may_have_made(obj)]
        if pod is not None and pod not in ours:
            return  # the Pod is somebody else's, and then so is the Service
        for obj in ours:
            if not kube.is_terminating(obj):
                await self._cluster.delete_exactly(obj, urgent=True)
                logger.info("sandbox %s: %s of the failed create deleted", attempt.sandbox.sandbox_id, obj["kind"])
