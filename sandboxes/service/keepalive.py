"""Renews sandboxes, and writes down when they were last used, at most once a minute each.

A use within the minute is remembered and written when the minute is over, or before the sandbox would count as idle:
so no use is forgotten but by the death of this process, and that costs at most a minute of a sandbox's life.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import ObjectsChanged, ProvisionerError
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    """A use that is not written yet, or being written now: then it has no timer."""

    pod: KubeObject
    used: datetime
    timer: asyncio.TimerHandle | None = None


class Uses:
    """Writes down that sandboxes were used; knows only those whose last use is not written."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pending: dict[str, _Pending] = {}
        self._deadlines = cluster.deadlines
        self._writing = BackgroundTasks()

    async def note(self, pod: KubeObject) -> KubeObject:
        """Count this as a use of the sandbox now; return the Pod as it is stored then.

        Written before this returns, if it must be. A sandbox that may stay unused for ever is left as it is.
        Raises ObjectsChanged if it is no longer that Pod, else what `annotate` raises.
        """
        now = expiry.present()
        idle = expiry.idle_timeout(pod)
        if idle is None:
            return pod
        uid = pod["metadata"]["uid"]
        pending = self._pending.get(uid)
        if pending is not None:
            pending.used = now
            return pod
        due = self._due(expiry.used_at(pod), idle)
        if due > now:
            self._write_at(due, pod, now)
            return pod
        # While it is being written, others need not.
        self._pending[uid] = _Pending(pod, now)
        written: datetime | None = None
        try:
            stored = await self._write(pod, now)
            written = now
        finally:
            self._reconsider(uid, now, written)
        return stored

    def latest(self, pod: KubeObject) -> datetime | None:
        """Return the last use that is not written yet, or None."""
        pending = self._pending.get(pod["metadata"]["uid"])
        return None if pending is None else pending.used

    async def finish(self) -> None:
        """Write what is not written yet; for the end of the process."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadlines.use_finish
        for _ in range(2):  # once more: for the uses that came while an earlier one was being written
            for uid, pending in list(self._pending.items()):
                if pending.timer is not None:
                    pending.timer.cancel()
                    self._start_writing(uid)
            await self._writing.wait(end - loop.time())

    def _write_at(self, due: datetime, pod: KubeObject, used: datetime) -> None:
        uid = pod["metadata"]["uid"]
        delay = max(0.0, (due - expiry.present()).total_seconds())
        timer = asyncio.get_running_loop().call_later(delay, self._start_writing, uid)
        self._pending[uid] = _Pending(pod, used, timer)

    def _due(self, written: datetime, idle: timedelta) -> datetime:
        """Return from when on a use must be written, if the last one was written then."""
        often_enough = written + timedelta(seconds=self._deadlines.use_interval)
        return min(often_enough, written + idle - timedelta(seconds=self._deadlines.use_margin))

    def _reconsider(self, uid: str, used: datetime, written: datetime | None) -> None:
        """After the write of a use: plan that of the uses since, which were answered already; at once if it failed."""
        pending = self._pending.pop(uid)
        if pending.used > used:
            idle = expiry.idle_timeout(pending.pod)
            assert idle is not None  # noqa: S101 - note() leaves out those without
            due = expiry.present() if written is None else self._due(written, idle)
            self._write_at(due, pending.pod, pending.used)

    def _start_writing(self, uid: str) -> None:
        # It stays pending until it is written: the reaper must know of it meanwhile, however long that takes.
        pending = self._pending[uid]
        pending.timer = None
        self._writing.start(self._write_down(uid, pending))

    async def _write_down(self, uid: str, pending: _Pending) -> None:
        """Write a use that nobody waits for, and try again later if that fails."""
        used = pending.used
        try:
            await self._write(pending.pod, used)
        except ObjectsChanged as error:
            logger.debug("a sandbox that was used is gone: %s", error)
        except ProvisionerError as error:
            logger.warning("that a sandbox was used could not be written down: %s\n%s", error, error.detail)
            self._write_at(expiry.present() + timedelta(seconds=self._deadlines.use_retry), pending.pod, pending.used)
        else:
            self._reconsider(uid, used, used)
        finally:
            if self._pending.get(uid) is pending:
                del self._pending[uid]

    async def _write(self, pod: KubeObject, used: datetime) -> KubeObject:
        return await self._cluster.annotate(pod, {kube.USED_ANNOTATION: expiry.text_of(used)}, manager="activity")


async def renew(cluster: Cluster, pod: KubeObject, ttl_seconds: int) -> KubeObject:
    """Have the sandbox end `ttl_seconds` from now, sooner or later than before, or never (0); return its Pod.

    Raises ObjectsChanged if it is no longer that Pod.
    """
    end = expiry.after(ttl_seconds, expiry.present())
    return await cluster.annotate(pod, {kube.EXPIRES_ANNOTATION: expiry.text_of(end)}, manager="expiry")


async def prolong(
    cluster: Cluster, pod: KubeObject, ttl_seconds: int | None, idle_timeout_seconds: int | None
) -> KubeObject:
    """Let the sandbox live as long as is asked for, if that is longer than it does; return its Pod.

    0 is for ever, None asks for nothing. Raises ObjectsChanged if it is no longer that Pod.
    """
    if ttl_seconds is not None:
        end = expiry.after(ttl_seconds, expiry.present())
        if end > expiry.ttl_ends_at(pod):
            pod = await renew(cluster, pod, ttl_seconds)
    idle = expiry.idle_timeout(pod)
    if idle_timeout_seconds is None or idle is None or 0 < idle_timeout_seconds <= idle.total_seconds():
        return pod
    return await cluster.annotate(pod, {kube.IDLE_ANNOTATION: str(idle_timeout_seconds)}, manager="idle")
