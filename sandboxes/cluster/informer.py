"""The informer: the sandboxes' Pods and Services as the cluster has them, kept by a list and a watch of each kind.

Reads are answered from it while it is fresh: both caches were shown to be current within `max_age`. It never says that
an object does not exist: the caller confirms a miss by a live read, since another replica may have made it just now.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from sandboxes import objects as kube
from sandboxes.cluster.cache import ResourceCache
from sandboxes.cluster.reflector import Lists, Reflector
from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.raw import sandboxes_of
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.runner import KubectlRunner
    from sandboxes.objects import KubeObject

KINDS = ("Pod", "Service")

_MOST_FOREIGN = 10_000

# How much of the time within which the view must be confirmed a watch lasts, whose end confirms it.
_WATCH_SHARE = 0.75


class Before(NamedTuple):
    """What the informer held of a sandbox when a live read of it began."""

    pod: KubeObject | None
    service: KubeObject | None
    doubt: float | None


class Informer:
    """Pods and Services of sandboxes in one namespace.

    `max_age`: seconds after which a view that was not confirmed is not fresh any more.
    """

    def __init__(
        self,
        lists: Lists,
        runner: KubectlRunner,
        namespace: str,
        *,
        max_age: float,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._max_age = max_age
        # After each change of an object: its kind and its name.
        self.changed: Signal[[str, str]] = Signal()
        # After each change: the object as it was here, and as it is.
        self.exchanged: Signal[[KubeObject | None, KubeObject | None]] = Signal()
        self._caches = {kind: ResourceCache(self._on_change) for kind in KINDS}
        # Sandboxes of which a delete of ours was not answered, and when that was.
        self._doubts: dict[str, float] = {}
        # Sandbox ids whose names other objects have, oldest first: no watch tells of those.
        self._foreign: dict[str, None] = {}
        self._progress = asyncio.Event()
        self._reflectors = {
            kind: Reflector(
                lists,
                runner,
                sandboxes_of(namespace, kind),
                cache,
                seconds=max(1, int(max_age * _WATCH_SHARE)),
                on_progress=self._wake,
                deadlines=deadlines,
            )
            for kind, cache in self._caches.items()
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the view for as long as the block runs."""
        tasks = [asyncio.create_task(reflector.keep()) for reflector in self._reflectors.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for cache in self._caches.values():
                cache.forget_version()

    @property
    def is_fresh(self) -> bool:
        """Whether it may answer for the cluster."""
        return self.age <= self._max_age

    @property
    def age(self) -> float:
        """Seconds since the view was last shown to be current; infinite if it may be out of date."""
        proven = [cache.proven_at for cache in self._caches.values()]
        return max(float("inf") if one is None else asyncio.get_running_loop().time() - one for one in proven)

    @property
    def watching(self) -> int:
        """How many watches run."""
        return sum(reflector.is_watching for reflector in self._reflectors.values())

    def restarts(self) -> dict[str, int]:
        """Return how many watches ended before their time, by resource."""
        return {kube.RESOURCES[kind]: reflector.restarts for kind, reflector in self._reflectors.items()}

    async def becomes_fresh(self) -> None:
        """Return as soon as it may answer for the cluster."""
        while not self.is_fresh:
            await self._progress.wait()

    def sandbox(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return a sandbox's Pod and Service as far as they are in the view."""
        pods, services = (cache.objects for cache in self._caches.values())
        return pods.get(kube.pod_name(sandbox_id)), services.get(kube.service_name(sandbox_id))

    def is_certain(self, sandbox_id: str) -> bool:
        """Whether the view may answer for this sandbox: it is fresh, and it has seen what became of our deletes."""
        return self.is_fresh and not self._is_doubted(sandbox_id) and sandbox_id not in self._foreign

    @property
    def is_certain_of_all(self) -> bool:
        """Whether the view may answer for all sandboxes, see `is_certain`."""
        return self.is_fresh and not any(map(self._is_doubted, list(self._doubts)))

    def sandboxes(self) -> Iterator[tuple[KubeObject, KubeObject]]:
        """Yield the Pod and the Service of every sandbox that has both; certain only if `is_certain_of_all`."""
        pods, services = (cache.objects for cache in self._caches.values())
        for name, pod in pods.items():
            service = services.get(kube.service_name_beside(name))
            if service is not None:
                yield pod, service

    def objects(self) -> Iterator[KubeObject]:
        """Yield all objects, also those whose other half is missing; certain only if `is_certain_of_all`."""
        for cache in self._caches.values():
            yield from cache.objects.values()

    def note(self, objects: Iterable[KubeObject]) -> None:
        """Take in what a call of our own has just read or written: the next read sees it."""
        for obj in objects:
            # Of others no watch would tell the end.
            if obj["kind"] in self._caches and _is_selected(obj):
                self._caches[obj["kind"]].note(obj)

    def note_deleted(self, objects: Iterable[KubeObject]) -> None:
        """Take in that a delete of our own of these very objects was accepted: the next read sees it."""
        for obj in objects:
            if obj["kind"] in self._caches:
                self._caches[obj["kind"]].note_end(obj)

    def doubt(self, sandbox_id: str) -> None:
        """Do not answer for a sandbox until both caches have been confirmed again: a delete of ours got no answer."""
        self._doubts[sandbox_id] = asyncio.get_running_loop().time()

    def before_read(self, sandbox_id: str) -> Before:
        """Return what `note_read` needs to know of the time before a live read."""
        return Before(*self.sandbox(sandbox_id), self._doubts.get(sandbox_id))

    def note_read(self, sandbox_id: str, objects: Iterable[KubeObject], before: Before) -> None:
        """Take in what a live read of a sandbox has found, and that what was here before and was not found is gone."""
        found = {kube.key_of(obj): obj for obj in objects}
        held = [obj for obj in (before.pod, before.service) if obj is not None]
        self.note_deleted(obj for obj in held if kube.key_of(obj) not in found)
        self.note(found.values())
        self._foreign.pop(sandbox_id, None)
        if any(not _is_selected(obj) for obj in found.values()):
            self._foreign[sandbox_id] = None
            if len(self._foreign) > _MOST_FOREIGN:
                del self._foreign[next(iter(self._foreign))]
        if before.doubt is not None and self._doubts.get(sandbox_id) == before.doubt:
            del self._doubts[sandbox_id]

    def _is_doubted(self, sandbox_id: str) -> bool:
        doubt = self._doubts.get(sandbox_id)
        # By when, not by how often: a list that began before the delete shows what was before it.
        proven = [cache.proven_at for cache in self._caches.values()]
        if doubt is not None and all(one is not None and one > doubt for one in proven):
            del self._doubts[sandbox_id]
            doubt = None
        return doubt is not None

    def _on_change(self, old: KubeObject | None, new: KubeObject | None) -> None:
        either = new or old
        assert either is not None  # noqa: S101 - something has changed
        self.changed.send(*kube.key_of(either))
        self.exchanged.send(old, new)

    def _wake(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


def _is_selected(obj: KubeObject) -> bool:
    """Whether the watches select the object."""
    return kube.get_labels(obj).get(kube.APP_LABEL) == kube.APP
