"""Caches the sandboxes' Pods and Services by a list and a watch of each kind, as client-go's informers do.

It may answer reads while it is fresh: both caches were proven current within `max_age`. A miss is no proof of absence,
since another replica may have just created the object; the caller confirms it by a live read.
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
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.runner import KubectlRunner
    from sandboxes.objects import KubeObject

KINDS = ("Pod", "Service")

_MAX_FOREIGN = 10_000

# Duration of a watch as a share of `max_age`: its normal end proves that the cache is current.
_WATCH_SHARE = 0.75


class Before(NamedTuple):
    """Cached objects and open doubt of a sandbox when a live read of it began; see `Informer.note_read`."""

    pod: KubeObject | None
    service: KubeObject | None
    doubt: float | None


class Informer:
    """Pods and Services of the sandboxes in one namespace.

    `max_age`: seconds after which a cache that was not proven current again stops being fresh. `kinds`: those to list
    and watch; of the others nothing is known.
    """

    def __init__(  # noqa: PLR0913 - what all its reflectors need
        self,
        lists: Lists,
        runner: KubectlRunner,
        namespace: str,
        *,
        max_age: float,
        kinds: Sequence[str] = KINDS,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._max_age = max_age
        # Sent after each change, with the object's kind and name.
        self.changed: Signal[[str, str]] = Signal()
        # Sent after each change, with the object before and after it.
        self.exchanged: Signal[[KubeObject | None, KubeObject | None]] = Signal()
        self._caches = {kind: ResourceCache(self._on_change) for kind in KINDS}
        # Sandbox id → time (loop clock) of a delete whose outcome is unknown.
        self._doubts: dict[str, float] = {}
        # Sandbox ids whose names belong to other objects, oldest first. The watches do not report those.
        self._foreign: dict[str, None] = {}
        self._progress = asyncio.Event()
        self._reflectors = {
            kind: Reflector(
                lists,
                runner,
                sandboxes_of(namespace, kind),
                cache,
                seconds=watch_seconds(max_age),
                on_progress=self._wake,
                deadlines=deadlines,
            )
            for kind, cache in self._caches.items()
            if kind in kinds
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """List and watch for as long as the block runs."""
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
        """Whether all watched caches were proven current within `max_age`."""
        return self.age <= self._max_age

    @property
    def age(self) -> float:
        """Seconds since all watched caches were last proven current; infinite while one may be out of date."""
        proven = [self._caches[kind].proven_at for kind in self._reflectors]
        return max(float("inf") if one is None else asyncio.get_running_loop().time() - one for one in proven)

    @property
    def pods_age(self) -> float:
        """Seconds since the Pods were last proven current, whatever failed since; infinite before the first list."""
        proven = self._caches["Pod"].last_proven_at
        return float("inf") if proven is None else asyncio.get_running_loop().time() - proven

    @property
    def pods_are_current(self) -> bool:
        """Whether a watch of the Pods runs that has not failed since they were last proven current."""
        return self._caches["Pod"].proven_at is not None

    @property
    def watching(self) -> int:
        """Number of running watches."""
        return sum(reflector.is_watching for reflector in self._reflectors.values())

    def restarts(self) -> dict[str, int]:
        """Return the number of watches that failed, by resource."""
        return {kube.RESOURCES[kind]: reflector.restarts for kind, reflector in self._reflectors.items()}

    async def becomes_fresh(self) -> None:
        """Wait until the informer is fresh."""
        while not self.is_fresh:
            await self._progress.wait()

    def sandbox(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the cached Pod and Service of a sandbox, fresh or not; None for each that is not cached."""
        pods, services = (cache.objects for cache in self._caches.values())
        return pods.get(kube.pod_name(sandbox_id)), services.get(kube.service_name(sandbox_id))

    def is_certain(self, sandbox_id: str) -> bool:
        """Whether reads of this sandbox may use the cache.

        It must be fresh, no delete may have an unknown outcome, and no other object may have the sandbox's names.
        """
        return self.is_fresh and not self._is_doubted(sandbox_id) and sandbox_id not in self._foreign

    @property
    def is_certain_of_all(self) -> bool:
        """Whether reads of all sandboxes may use the cache; see `is_certain`."""
        return self.is_fresh and not any(map(self._is_doubted, list(self._doubts)))

    def sandboxes(self) -> Iterator[tuple[KubeObject, KubeObject | None]]:
        """Yield (Pod, Service) of every sandbox that has what it needs; current only if `is_certain_of_all`.

        A Pod that was made for the gateway needs no Service; it may have one.
        """
        pods, services = (cache.objects for cache in self._caches.values())
        for name, pod in pods.items():
            service = services.get(kube.service_name_beside(name))
            if service is not None or kube.is_behind_gateway(pod):
                yield pod, service

    def objects(self) -> Iterator[KubeObject]:
        """Yield all cached objects, also a Pod or Service without the other; current only if `is_certain_of_all`."""
        for cache in self._caches.values():
            yield from cache.objects.values()

    def note(self, objects: Iterable[KubeObject]) -> None:
        """Add objects that the service has just read or written, so that the next read sees them."""
        for obj in objects:
            # The watch would not report the end of other objects.
            if obj["kind"] in self._caches and _is_selected(obj):
                self._caches[obj["kind"]].note(obj)

    def note_deleted(self, objects: Iterable[KubeObject]) -> None:
        """Remove objects whose delete the API server has accepted, so that the next read does not see them."""
        for obj in objects:
            if obj["kind"] in self._caches:
                self._caches[obj["kind"]].note_end(obj)

    def doubt(self, sandbox_id: str) -> None:
        """Mark a sandbox as uncertain until both caches are proven current again: a delete has an unknown outcome."""
        self._doubts[sandbox_id] = asyncio.get_running_loop().time()

    def before_read(self, sandbox_id: str) -> Before:
        """Return the state before a live read, for `note_read`."""
        return Before(*self.sandbox(sandbox_id), self._doubts.get(sandbox_id))

    def note_read(self, sandbox_id: str, objects: Iterable[KubeObject], before: Before) -> None:
        """Update the cache from a live read of a sandbox.

        Removes objects that were cached `before` the read and not found by it. Clears the doubt that was open then.
        """
        found = {kube.key_of(obj): obj for obj in objects}
        held = [obj for obj in (before.pod, before.service) if obj is not None]
        self.note_deleted(obj for obj in held if kube.key_of(obj) not in found)
        self.note(found.values())
        self._foreign.pop(sandbox_id, None)
        if any(not _is_selected(obj) for obj in found.values()):
            self._foreign[sandbox_id] = None
            if len(self._foreign) > _MAX_FOREIGN:
                del self._foreign[next(iter(self._foreign))]
        if before.doubt is not None and self._doubts.get(sandbox_id) == before.doubt:
            del self._doubts[sandbox_id]

    def _is_doubted(self, sandbox_id: str) -> bool:
        doubt = self._doubts.get(sandbox_id)
        # Compare times: a list that began before the delete shows the state before it.
        proven = [self._caches[kind].proven_at for kind in self._reflectors]
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


def watch_seconds(max_age: float) -> int:
    """Return the timeout of each watch of a view with this `max_age`."""
    return max(1, int(max_age * _WATCH_SHARE))


def _is_selected(obj: KubeObject) -> bool:
    """Whether the watches select the object."""
    return kube.get_labels(obj).get(kube.APP_LABEL) == kube.APP
