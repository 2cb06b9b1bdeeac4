"""The informer: what the cluster holds of sandboxes, kept by two watches, and honest about its age.

Reads are answered from it while it is fresh: both watches run, and a list that started after they did, and not longer
ago than the bound, has been taken in. What it can't answer with certainty is read live. It never says that something
is not there: a miss is the caller's to confirm.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.cluster.watch import Watch
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ProvisionerError
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.runner import KubectlRunner
    from sandboxes.objects import Key, KubeObject

logger = logging.getLogger(__name__)

_RESOURCES = {kind: kube.RESOURCES[kind] for kind in ("Pod", "Service")}


class Informer:
    """Pods and Services of sandboxes by (kind, name), in one namespace.

    `max_age`: seconds; when the last list is older, the view is not fresh. It is resynced twice as often.
    """

    def __init__(
        self,
        runner: KubectlRunner,
        list_sandboxes: Callable[[str], Awaitable[list[KubeObject]]],
        namespace: str,
        *,
        max_age: float,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._deadlines = deadlines
        self._list = list_sandboxes
        self._namespace = namespace
        self._max_age = max_age
        self._objects: dict[Key, KubeObject] = {}
        self._heard: dict[Key, float] = {}
        # The version of each object that its watch told last, since it runs.
        self._told: dict[Key, int] = {}
        # The uids of what a list showed to be gone, and its watch has not told of yet.
        self._untold_ends: dict[str, set[str]] = {kind: set() for kind in _RESOURCES}
        # The uids of what is gone for good: a list or a get that began before may still show them.
        self._gone: ExpiringDict[str, None] = ExpiringDict(deadlines.gone_remembered, _now)
        # What this process has deleted: the uid that must not come back, or None where a write of ours is in doubt.
        self._deleted: dict[Key, str | None] = {}
        self._deleted_at: dict[Key, float] = {}
        self._synced_at: float | None = None
        self._sync_wanted = asyncio.Event()
        self._sync_done = asyncio.Event()
        # How often a watch has started: a list that began before one did proves nothing.
        self._starts = 0
        # After each change of an object: its kind and its name.
        self.changed: Signal[[str, str]] = Signal()
        # After each change: the object as it was here, and as it is.
        self.exchanged: Signal[[KubeObject | None, KubeObject | None]] = Signal()
        self._watches = {
            kind: Watch(
                runner,
                resource,
                namespace,
                on_event=self._on_event,
                on_start=functools.partial(self._on_watch_start, kind),
                deadlines=deadlines,
            )
            for kind, resource in _RESOURCES.items()
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the view for as long as the block runs."""
        tasks = [asyncio.create_task(watch.keep()) for watch in self._watches.values()]
        tasks.append(asyncio.create_task(self._keep_in_sync()))
        try:
            yield
        finally:
            self._synced_at = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_fresh(self) -> bool:
        """Whether it may answer for the cluster."""
        return self.age <= self._max_age and all(self._is_told(kind) for kind in self._watches)

    @property
    def age(self) -> float:
        """Seconds since the last list that was taken in began; infinite before the first."""
        return float("inf") if self._synced_at is None else _now() - self._synced_at

    @property
    def watching(self) -> int:
        """How many watches run."""
        return sum(watch.is_running for watch in self._watches.values())

    def restarts(self) -> dict[str, int]:
        """Return how often each watch was started once more, by resource."""
        return {_RESOURCES[kind]: max(0, watch.restarts) for kind, watch in self._watches.items()}

    async def becomes_fresh(self) -> None:
        """Return as soon as it may answer for the cluster."""
        while not self.is_fresh:
            await self._sync_done.wait()

    def sandbox(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return a sandbox's Pod and Service as far as they are in the view."""
        pod, service = _keys(sandbox_id)
        return self._objects.get(pod), self._objects.get(service)

    def is_certain(self, sandbox_id: str) -> bool:
        """Whether the view may answer for this sandbox: it is fresh, and no delete of ours is still unseen."""
        return self.is_fresh and not any(self._deleted.get(key, "") is None for key in _keys(sandbox_id))

    @property
    def is_certain_of_all(self) -> bool:
        """Whether the view may answer for all sandboxes: it is fresh, and no delete of ours is still unseen."""
        return self.is_fresh and None not in self._deleted.values()

    def sandboxes(self) -> Iterator[tuple[KubeObject, KubeObject]]:
        """Yield the Pod and the Service of every sandbox that has both; certain only if `is_certain_of_all`."""
        for (kind, name), pod in self._objects.items():
            if kind == "Pod":
                service = self._objects.get(("Service", kube.service_name_beside(name)))
                if service is not None:
                    yield pod, service

    def objects(self) -> Iterator[KubeObject]:
        """Yield all objects, also those of which there is only one half; certain only if `is_certain_of_all`."""
        yield from self._objects.values()

    def note(self, objects: Iterable[KubeObject]) -> None:
        """Take in what a call of our own has just read or written."""
        for obj in objects:
            if obj["kind"] in _RESOURCES:
                key = kube.key_of(obj)
                if self._deleted.get(key, "") is None:  # what was in doubt is known again
                    self._forget_delete(key)
                self._put(obj)

    def note_deleted(self, uids: dict[Key, str]) -> None:
        """Take in that a delete of our own of these very objects was accepted: the next read sees it.

        The watch may have told of their end already.
        """
        for key, uid in uids.items():
            self._forget_delete(key)
            if uid in self._gone or self._uid(key) not in (None, uid):
                continue
            self._drop(key)
            self._deleted[key] = uid
            self._deleted_at[key] = _now()

    def doubt(self, sandbox_id: str) -> None:
        """Answer no more for a sandbox until a list tells: what came of a write of ours is not known."""
        for key in _keys(sandbox_id):
            self._deleted[key] = None
            self._deleted_at[key] = _now()
        self._sync_wanted.set()

    def note_read(self, sandbox_id: str, objects: Iterable[KubeObject], started: float) -> None:
        """Take in what a live read that began at `started` (loop time) has found of a sandbox, and what it has not."""
        found = {kube.key_of(obj): obj for obj in objects}
        for key in _keys(sandbox_id):
            if key not in found and self._heard.get(key, 0.0) < started:
                self._remove(key)
        self.note(found.values())

    def _is_told(self, kind: str) -> bool:
        """Whether the watch of this kind watches. One that is silent though there is something has not listed yet."""
        watch = self._watches[kind]
        return watch.has_spoken or (watch.is_running and not any(key[0] == kind for key in self._objects))

    def _on_watch_start(self, kind: str) -> None:
        # What was deleted while it did not run, only a list that starts now can tell.
        self._untold_ends[kind].clear()
        self._told = {key: version for key, version in self._told.items() if key[0] != kind}
        self._synced_at = None
        self._starts += 1
        self._sync_wanted.set()

    def _on_event(self, kind_of_event: str, obj: KubeObject) -> None:
        key = kube.key_of(obj)
        self._told[key] = _version(obj)
        if kind_of_event != "DELETED":
            self._put(obj)
            return
        uid = obj["metadata"]["uid"]
        self._untold_ends[key[0]].discard(uid)
        self._gone.note(uid, None)
        if self._uid(key) == uid:
            self._remove(key, last=obj)
        if self._deleted.get(key) in (None, uid):
            self._forget_delete(key)

    def _put(self, obj: KubeObject) -> None:
        """Take in an object, unless it is older than what is known, or one that we have deleted."""
        key = kube.key_of(obj)
        known = self._objects.get(key)
        if obj["metadata"]["uid"] in self._gone or (known is not None and not _is_newer(obj, known)):
            return
        if key in self._deleted and self._deleted[key] == obj["metadata"]["uid"] and not kube.is_terminating(obj):
            return
        if self._deleted.get(key) and self._deleted[key] != obj["metadata"]["uid"]:
            self._forget_delete(key)  # made anew
        self._objects[key] = obj
        self._heard[key] = _now()
        self._tell(key, known, obj)

    def _forget_delete(self, key: Key) -> None:
        self._deleted.pop(key, None)
        self._deleted_at.pop(key, None)

    def _remove(self, key: Key, last: KubeObject | None = None) -> None:
        known = self._drop(key, last)
        if known is not None:
            self._gone.note(known["metadata"]["uid"], None)

    def _drop(self, key: Key, last: KubeObject | None = None) -> KubeObject | None:
        """Take an object out and return it; `last` is its last version where that is known, for the listeners."""
        known = self._objects.pop(key, None)
        self._heard.pop(key, None)
        if known is not None:
            self._tell(key, last or known, None)
        return known

    def _tell(self, key: Key, old: KubeObject | None, new: KubeObject | None) -> None:
        self.changed.send(*key)
        self.exchanged.send(old, new)

    def held(self, obj: KubeObject) -> KubeObject:
        """Return the same version of the object from the view, if it is there, else the object."""
        known = self._objects.get(kube.key_of(obj))
        same = ("uid", "resourceVersion")
        if known is None or any(known["metadata"][field] != obj["metadata"][field] for field in same):
            return obj
        return known

    def _uid(self, key: Key) -> str | None:
        known = self._objects.get(key)
        return None if known is None else known["metadata"]["uid"]

    async def _keep_in_sync(self) -> None:
        """List twice within the bound, and whenever a watch has started; what the list proves gone is removed."""
        telling = min(self._deadlines.watch_telling, self._max_age / 4)
        while True:
            try:
                listed = await self._sync()
            except ProvisionerError as error:
                logger.warning("the live view could not be compared with the cluster: %s\n%s", error, error.detail)
                await self._wait_for_wish(1.0)
                continue
            except Exception:
                logger.exception("the live view could not be compared with the cluster")
                await self._wait_for_wish(1.0)
                continue
            if any(watch.is_running and not self._is_told(kind) for kind, watch in self._watches.items()):
                # Until the watch speaks, or what there is to speak of is gone.
                if not await self._wait_for_wish(telling / 5):
                    self._restart_watches_that_never_spoke(2 * telling)
            elif not await self._wait_for_wish(telling):
                self._restart_silent_watches(listed, telling)
                await self._wait_for_wish(self._max_age / 2 - telling)

    async def _wait_for_wish(self, seconds: float) -> bool:
        """Wait so long, or until a list is wanted at once; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._sync_wanted.wait()
        except TimeoutError:
            return False
        self._sync_wanted.clear()
        return True

    async def _sync(self) -> dict[Key, int]:
        """Take in a list, which is right for all that nobody has told since it began; return its versions."""
        started, starts = _now(), self._starts
        running = all(watch.is_running for watch in self._watches.values())
        listed = {kube.key_of(obj): obj for obj in await self._list(self._namespace)}
        for key in [key for key, heard in self._heard.items() if heard < started]:
            if key in listed and listed[key]["metadata"]["uid"] == self._uid(key):
                if _version(listed[key]) != _version(self._objects[key]):
                    known, self._objects[key] = self._objects[key], listed[key]
                    self._tell(key, known, listed[key])
            else:
                self._note_untold_end(key)
                self._remove(key)
        for obj in listed.values():
            self._put(obj)
        for key in [key for key, at in self._deleted_at.items() if at < started]:
            # A list that began after our delete shows what is left of it.
            if self._deleted.get(key, "") is None or key not in listed:
                self._forget_delete(key)
        self._told = {key: version for key, version in self._told.items() if key in listed}
        if running and starts == self._starts:
            self._synced_at = started
            self._sync_done.set()
            self._sync_done = asyncio.Event()
        return {key: _version(obj) for key, obj in listed.items()}

    def _note_untold_end(self, key: Key) -> None:
        uid = self._uid(key)
        if uid is not None and key in self._told:
            self._untold_ends[key[0]].add(uid)

    def _restart_silent_watches(self, listed: dict[Key, int], telling: float) -> None:
        """Start a watch again that has not told by now what a list showed so long ago, nor anything else since."""
        for kind, watch in self._watches.items():
            untold = sum(key[0] == kind and self._told.get(key, 0) < version for key, version in listed.items())
            untold += len(self._untold_ends[kind])
            if untold and watch.is_running and _now() - watch.spoke_at >= telling:
                logger.warning("the watch of %s does not tell of %d objects: starting it again", kind, untold)
                watch.restart()

    def _restart_watches_that_never_spoke(self, seconds: float) -> None:
        """Start a watch again that has said nothing for so long though there is something to say."""
        for kind, watch in self._watches.items():
            if watch.is_running and not self._is_told(kind) and _now() - watch.spoke_at >= seconds:
                logger.warning("the watch of %s says nothing: starting it again", kind)
                watch.restart()


def _keys(sandbox_id: str) -> tuple[Key, Key]:
    return ("Pod", kube.pod_name(sandbox_id)), ("Service", kube.service_name(sandbox_id))


def _is_newer(obj: KubeObject, known: KubeObject) -> bool:
    """Whether `obj` is a later version than `known`; resource versions are numbers that grow (KEP-5504)."""
    if (
        obj["metadata"]["uid"] == known["metadata"]["uid"]
        and kube.is_terminating(known)
        and not kube.is_terminating(obj)
    ):
        return False
    return _version(obj) > _version(known)


def _version(obj: KubeObject) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _now() -> float:
    return asyncio.get_running_loop().time()
