"""Rolls back failed creates: deletes the objects they made, but none that existed before or that another create uses.

The first try is made before the caller gets its error. If it fails, tries continue in the background for `settle`
seconds; the reaper is the backstop.
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
    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.attempt import Attempt
    from sandboxes.service.locks import Locks
    from sandboxes.service.template_objects import Extras

logger = logging.getLogger(__name__)

# The Pod, and the Service, if the sandbox's access needs one.
Pair: TypeAlias = "tuple[KubeObject, KubeObject | None]"


class Clock(Protocol):
    """A monotonic clock in seconds, injected for tests."""

    def time(self) -> float:
        """Return the current time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class LoopClock:
    """The running event loop's clock."""

    def time(self) -> float:
        """Return the loop time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


class Rollback:
    """Rolls back failed creates on one cluster. `locks` serialise the work on one id."""

    def __init__(
        self,
        cluster: Cluster,
        accesses: Accesses,
        locks: Locks,
        template_objects: Extras,
        clock: Clock | None = None,
    ) -> None:
        self._cluster = cluster
        self._accesses = accesses
        self._locks = locks
        self._template_objects = template_objects
        self._clock: Clock = clock or LoopClock()
        self._deadlines = cluster.deadlines
        # By id: failed creates whose callers have their error, and whose objects may still exist.
        self._pending: dict[str, Attempt] = {}
        self._tasks = BackgroundTasks()

    @property
    def any_pending(self) -> bool:
        """Whether `is_pending` is true for any sandbox."""
        return bool(self._pending)

    def is_pending(self, sandbox_id: str) -> bool:
        """Whether this sandbox's objects come from a failed create and are about to be deleted."""
        return sandbox_id in self._pending

    def forget(self, sandbox_id: str) -> None:
        """Stop the rollback of this sandbox: a later create has made it or returned it to a caller."""
        self._pending.pop(sandbox_id, None)

    async def roll_back(self, attempt: Attempt, error: ProvisionerError | None = None) -> Pair | None:
        """Delete the objects of a failed create and return None, or return the sandbox if it is complete after all.

        It may be complete because an interrupted apply reached the server or another process made the same sandbox.
        Deletes that fail or exceed `undo` seconds continue in the background. The caller holds the lock of the id.
        """
        if not attempt.applied:
            return None
        try:
            async with within(self._deadlines.undo):
                return await self._try(attempt, left=error.left if error else None)
        except ProvisionerError as failure:
            logger.warning(
                "sandbox %s: objects of a failed create can't be deleted yet: %s", attempt.sandbox.sandbox_id, failure
            )
        except asyncio.CancelledError:
            self._try_later(attempt)
            raise
        self._try_later(attempt)
        return None

    async def finish(self) -> None:
        """Wait up to `settle_finish` seconds for running rollbacks; the reaper deletes the rest."""
        if not self._tasks:
            return
        await self._tasks.finish(self._deadlines.settle_finish)
        for sandbox_id in self._pending:
            logger.error("sandbox %s: objects of a failed create may be left behind", sandbox_id)

    def _try_later(self, attempt: Attempt) -> None:
        self._pending[attempt.sandbox.sandbox_id] = attempt
        self._tasks.start(self._keep_trying(attempt))

    async def _keep_trying(self, attempt: Attempt) -> None:
        """Retry until the failed create's objects are deleted or a later create has taken the sandbox over."""
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
                        "sandbox %s: objects of a failed create may be left behind: %s\n%s",
                        sandbox_id,
                        error.public,
                        error.detail,
                    )
                    return
            await self._clock.sleep(self._deadlines.settle_pause)

    async def _try(
        self, attempt: Attempt, *, refused: bool = False, left: list[KubeObject] | None = None
    ) -> Pair | None:
        """Return the sandbox if it is complete and may stay; else delete the attempt's objects and return None.

        `refused`: the caller already has its error, so the attempt's own sandbox may not stay, unless it was made
        without the right to patch: then it may have been returned to another caller. `left`: the Pod and the Service,
        if they have just been read.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        if left is None:
            pod, service = await self._cluster.look(sandbox_id, urgent=True)
        else:
            pod, service = kube.of_kind("Pod", left), kube.of_kind("Service", left)
        if pod is not None and service is None and self._lacks_service(pod) and attempt.may_have_made(pod):
            # `applied-at` names the last writer, so the Pod may be another process's that is about to add the Service.
            await self._clock.sleep(self._deadlines.others_service)
            pod, service = await self._cluster.look(sandbox_id, urgent=True)
        while True:
            if pod is not None and self._may_stay(attempt, pod, service, refused=refused):
                return pod, service
            try:
                await self._delete(attempt, pod, service)
            except PreconditionFailed:  # touched since it was read
                pod, service = await self._cluster.look(sandbox_id, urgent=True)
            else:
                await self._template_objects.undo(attempt.extras)
                return None

    def _lacks_service(self, pod: KubeObject) -> bool:
        return self._accesses.of(pod, None).needs_service

    def _may_stay(self, attempt: Attempt, pod: KubeObject, service: KubeObject | None, *, refused: bool) -> bool:
        if not attempt.is_made(pod, service, self._accesses):
            return False
        # Without patch another process that has returned it to a caller could not confirm it.
        return not refused or attempt.without_patch or not attempt.may_have_made(pod)

    async def _delete(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> None:
        """Delete this attempt's objects; raises PreconditionFailed if one has changed since it was read."""
        made = [obj for obj in (pod, service) if obj is not None and attempt.may_have_made(obj)]
        if pod is not None and pod not in made:
            return  # the Service belongs to the Pod, which is another create's
        left = [obj for obj in made if not kube.is_being_deleted(obj)]
        if attempt.without_patch:
            for obj in left:
                await self._cluster.delete_exactly(obj, urgent=True)
        elif left:
            await self._cluster.discard(left)
        for obj in left:
            logger.info("sandbox %s: %s of the failed create deleted", attempt.sandbox.sandbox_id, obj["kind"])
