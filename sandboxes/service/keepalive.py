"""Renews sandboxes and records their last use, with at most one write a minute for each.

A use within that minute is kept in memory and written when the minute ends, or earlier if the sandbox would become
idle. Only a crash of this process loses a use, which shortens a sandbox's life by at most a minute.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import ObjectsChanged, PatchForbidden, ProvisionerError
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    """The last use of a sandbox, not yet written; without a timer it is being written."""

    pod: KubeObject
    used: datetime
    timer: asyncio.TimerHandle | None = None


class Uses:
    """Records when sandboxes are used; keeps only the uses that are not yet written."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pending: dict[str, _Pending] = {}
        self._deadlines = cluster.deadlines
        self._writing = BackgroundTasks()
        # Loop time at which a background write is tried again after the right to patch was missing.
        self._forbidden_until: float | None = None
        self._is_finishing = False

    def note_later(self, pod: KubeObject) -> None:
        """Record a use now, and write it in the background, at most once a minute. Raises nothing.

        Does nothing for a sandbox without an idle timeout, and for a minute after the right to patch was missing.
        """
        idle = expiry.idle_timeout(pod)
        if idle is None or self._is_finishing or self._is_forbidden:
            return
        now = expiry.present()
        pending = self._pending.get(pod["metadata"]["uid"])
        if pending is not None:
            pending.used = now
            return
        self._write_at(max(self._due(expiry.used_at(pod), idle), now), pod, now)

    @property
    def _is_forbidden(self) -> bool:
        return self._forbidden_until is not None and asyncio.get_running_loop().time() < self._forbidden_until

    async def note(self, pod: KubeObject) -> KubeObject:
        """Record a use now; return the Pod, as stored if this wrote it.

        Writes at once if a write is due, else later. Does nothing for a sandbox without an idle timeout. Raises
        ObjectsChanged if the Pod was replaced, and the errors of `annotate`.
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
        # Concurrent calls see this entry and do not write as well.
        self._pending[uid] = _Pending(pod, now)
        written: datetime | None = None
        try:
            stored = await self._write(pod, now)
            written = now
        finally:
            self._schedule_next(uid, now, written)
        return stored

    def latest(self, pod: KubeObject) -> datetime | None:
        """Return the last use if it is not written yet, else None."""
        pending = self._pending.get(pod["metadata"]["uid"])
        return None if pending is None else pending.used

    async def finish(self) -> None:
        """Write all pending uses, for a limited time; call it at shutdown."""
        self._is_finishing = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadlines.use_finish
        for _ in range(2):  # the second pass writes uses noted during the first
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
        """Return when the next use must be written, given the time of the last written one."""
        often_enough = written + timedelta(seconds=self._deadlines.use_interval)
        return min(often_enough, written + idle - timedelta(seconds=self._deadlines.use_margin))

    def _schedule_next(self, uid: str, used: datetime, written: datetime | None) -> None:
        """Schedule the write of a later use, noted while `used` was being written; at once if that write failed."""
        pending = self._pending.pop(uid)
        if pending.used > used:
            idle = expiry.idle_timeout(pending.pod)
            assert idle is not None  # noqa: S101 - note() skips Pods without one
            due = expiry.present() if written is None else self._due(written, idle)
            self._write_at(due, pending.pod, pending.used)

    def _start_writing(self, uid: str) -> None:
        # It stays pending while it is written, so that the reaper respects it.
        pending = self._pending[uid]
        pending.timer = None
        self._writing.start(self._write_down(uid, pending))

    async def _write_down(self, uid: str, pending: _Pending) -> None:
        """Write a use in the background; retry later on failure."""
        used = pending.used
        try:
            await self._write(pending.pod, used)
        except ObjectsChanged as error:
            logger.debug("a used sandbox is gone: %s", error)
        except PatchForbidden as error:
            self._take_forbidden(error)
        except ProvisionerError as error:
            logger.warning("the last use of a sandbox could not be written: %s\n%s", error, error.detail)
            self._write_at(expiry.present() + timedelta(seconds=self._deadlines.use_retry), pending.pod, pending.used)
        else:
            self._schedule_next(uid, used, used)
        finally:
            if self._pending.get(uid) is pending:
                del self._pending[uid]

    def _take_forbidden(self, error: PatchForbidden) -> None:
        """Drop the use, and warn the first time."""
        if self._forbidden_until is None:
            logger.warning("%s, so uses do not put off the end of idle sandboxes.\n%s", error, error.detail)
        self._forbidden_until = asyncio.get_running_loop().time() + self._deadlines.patch_forbidden

    async def _write(self, pod: KubeObject, used: datetime) -> KubeObject:
        return await self._cluster.annotate(pod, {kube.USED_ANNOTATION: expiry.text_of(used)}, manager="activity")


async def renew(cluster: Cluster, pod: KubeObject, ttl_seconds: int) -> KubeObject:
    """Set the expiry to now + `ttl_seconds` and return the Pod; 0 disables it. May shorten.

    Raises ObjectsChanged if the Pod was replaced.
    """
    end = expiry.after(ttl_seconds, expiry.present())
    return await cluster.annotate(pod, {kube.EXPIRES_ANNOTATION: expiry.text_of(end)}, manager="expiry")


async def prolong(
    cluster: Cluster, pod: KubeObject, ttl_seconds: int | None, idle_timeout_seconds: int | None
) -> KubeObject:
    """Raise the TTL and the idle timeout to the given seconds and return the Pod; never shortens.

    0 means no limit, None leaves the value. Raises ObjectsChanged if the Pod was replaced.
    """
    if ttl_seconds is not None:
        end = expiry.after(ttl_seconds, expiry.present())
        if end > expiry.ttl_ends_at(pod):
            pod = await renew(cluster, pod, ttl_seconds)
    idle = expiry.idle_timeout(pod)
    if idle_timeout_seconds is None or idle is None or 0 < idle_timeout_seconds <= idle.total_seconds():
        return pod
    return await cluster.annotate(pod, {kube.IDLE_ANNOTATION: str(idle_timeout_seconds)}, manager="idle")
