"""Takes back a sandbox that a create has made and that no caller has got, or shows that a caller gets it.

A create on one of several clusters may have to give way to another one. Of a Pod, `confirmed-at` says that it was
returned: it is written before, so whoever made the Pod can tell under its resourceVersion.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import KeepsChanging, ObjectsChanged, StillDeleting
from sandboxes.service.attempt import is_returned, mark_of, now

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.locks import Locks
    from sandboxes.service.template_objects import Extras

logger = logging.getLogger(__name__)

# A round is repeated if another writer changed the Pod; after this many, give up.
MAX_ROUNDS = 5


class Withdrawals:
    """The withdrawals and confirmations of one cluster's sandboxes."""

    def __init__(self, cluster: Cluster, locks: Locks, extras: Extras) -> None:
        self._cluster = cluster
        self._locks = locks
        self._extras = extras

    async def withdraw(  # noqa: PLR0913 - each is independent of the others
        self,
        sandbox_id: str,
        uid: str,
        mark: str | None,
        *,
        confirmed: bool = False,
        anyones: bool = False,
        until_gone: bool = False,
        seconds: float | None = None,
    ) -> bool:
        """Delete the sandbox if its Pod has this uid; return whether there is no such Pod afterwards, or it terminates.

        Unless `confirmed`, one that another create than that of this `mark` may have returned stays; with `anyones`,
        one that any create may have returned. `until_gone`: wait until it is gone, and raise StillDeleting if it is not
        within `seconds`, by default those of a delete.
        """
        most = self._cluster.deadlines.delete if seconds is None else seconds
        async with self._locks.hold(sandbox_id, most) as seconds_left, within(seconds_left):
            end = asyncio.get_running_loop().time() + seconds_left
            leaving = await self._extras.leaving(sandbox_id)
            for _ in range(MAX_ROUNDS):
                pod, service = await self._cluster.look(sandbox_id, urgent=True)
                if pod is None or pod["metadata"]["uid"] != uid:
                    return True
                if kube.is_being_deleted(pod):
                    break
                stays = is_returned(pod) if anyones else mark_of(pod) != mark or is_returned(pod, mark)
                if stays and not confirmed:
                    return False
                try:
                    await self._cluster.delete_exactly(pod, urgent=True)
                    if service is not None and mark_of(service) == mark_of(pod):
                        await self._cluster.delete_exactly(service, urgent=True)
                except ObjectsChanged as error:
                    logger.debug("sandbox %s has changed and is read again: %s", sandbox_id, error)
                    continue
                self._extras.delete_later(leaving)
                logger.info("sandbox %s withdrawn", sandbox_id)
                break
            else:
                raise KeepsChanging
            if until_gone and not await self._is_gone(pod, end):
                raise StillDeleting
            return True

    async def _is_gone(self, pod: KubeObject, end: float) -> bool:
        """Wait until the Pod is gone; False if it is not at `end` (loop time)."""
        pauses = self._cluster.deadlines.gone_pauses
        for pause in itertools.chain(pauses, itertools.repeat(pauses[-1])):
            if await self._cluster.is_gone(pod):
                break
            if asyncio.get_running_loop().time() + pause >= end:
                return False
            await asyncio.sleep(pause)
        return True

    async def confirm(self, sandbox_id: str, uid: str, mark: str | None = None) -> bool:
        """Mark the Pod with this uid as returned to a caller, so that no maker withdraws it or rolls it back.

        `mark`: of the create that has made the Pod, if it is the one that returns it. That can still withdraw it where
        this call has no answer, since every other create confirms it before it returns it.

        Returns whether it is there, and not terminating. Needs the right to patch it.
        """
        reference = kube.references_of(sandbox_id, self._cluster.namespace)[0]
        pod = {**reference, "metadata": {**reference["metadata"], "uid": uid}}
        async with within(self._cluster.deadlines.read):
            try:
                stored = None
                if mark is not None:
                    stored = await self._cluster.annotate(pod, {kube.RETURNED_ANNOTATION: mark}, manager="return")
                # Another create has applied it since, and holds it for its own: this one has only found it.
                if stored is None or mark_of(stored) != mark:
                    confirmed = {kube.CONFIRMED_ANNOTATION: now()}
                    stored = await self._cluster.annotate(pod, confirmed, manager="confirmation")
            except ObjectsChanged as error:
                logger.debug("sandbox %s is gone before it was returned: %s", sandbox_id, error)
                return False
        # An apply onto a terminating Pod succeeds (record: apply-onto-terminating).
        return not kube.is_terminating(stored)
