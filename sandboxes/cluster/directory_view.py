"""Caches the directory's ConfigMaps of one cluster (markers, and the record of names) by a list and a watch.

Only with several clusters. It shows where a sandbox is, never that there is none: whoever finds nothing here reads the
cluster. Apart from the informer, so that the loss of this watch does not make the sandboxes' view stale.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sandboxes.cluster.cache import ResourceCache
from sandboxes.cluster.informer import watch_seconds
from sandboxes.cluster.reflector import Lists, Reflector
from sandboxes.kubectl.raw import config_maps_of_directory, version_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandboxes.cluster.informer import Informer
    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.runner import KubectlRunner
    from sandboxes.objects import KubeObject


class DirectoryView:
    """The directory's ConfigMaps in one namespace, beside the Pods of `informer`.

    `max_age`: seconds after which the view is not fresh unless it was proven current again.
    """

    def __init__(  # noqa: PLR0913 - what a view needs
        self,
        lists: Lists,
        runner: KubectlRunner,
        informer: Informer,
        namespace: str,
        *,
        max_age: float,
        deadlines: Deadlines,
    ) -> None:
        self._informer = informer
        self._max_age = max_age
        self._cache = ResourceCache(lambda _old, _new: None)
        self._collection = config_maps_of_directory(namespace)
        # When the informer first had each of its Pods, by uid: the Pod's version then, and the loop time.
        self._first: dict[str, tuple[int, float]] = {}
        self._reflector = Reflector(
            lists,
            runner,
            self._collection,
            self._cache,
            seconds=watch_seconds(max_age),
            on_progress=lambda: None,
            deadlines=deadlines,
        )
        informer.exchanged.connect(self._on_exchange)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """List and watch for as long as the block runs."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._cache.forget_version()

    async def _keep(self) -> None:
        # A list that begins after that of the Pods is newer than all of them: see `is_newer_than`.
        await self._informer.becomes_fresh()
        await self._reflector.keep()

    @property
    def is_fresh(self) -> bool:
        """Whether the view was proven current within `max_age`."""
        proven = self._cache.proven_at
        return proven is not None and asyncio.get_running_loop().time() - proven <= self._max_age

    @property
    def watching(self) -> int:
        """Number of running watches."""
        return int(self._reflector.is_watching)

    def restarts(self) -> dict[str, int]:
        """Return the number of watches that failed, by resource."""
        return {self._collection.resource: self._reflector.restarts}

    def get(self, name: str) -> KubeObject | None:
        """Return the ConfigMap of this name; current only if `is_fresh`, and None is no proof."""
        return self._cache.objects.get(name)

    def objects(self) -> Iterator[KubeObject]:
        """Yield all ConfigMaps; current only if `is_fresh`."""
        yield from self._cache.objects.values()

    def is_newer_than(self, pod: KubeObject) -> bool:
        """Whether the view shows a state that is not older than the Pod of the informer: what it lacks was not there.

        By the version, which no delay of a watch can feign where one etcd has both kinds; and by the time, in case they
        have one each, whose versions can't be compared (KEP-5504).
        """
        version, proven = self._cache.version, self._cache.proven_at
        first = self._first.get(pod["metadata"]["uid"])
        if version is None or proven is None or first is None:
            return False
        return version >= first[0] and proven > first[1]

    def _on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        was = None if old is None or old["kind"] != "Pod" else old["metadata"]["uid"]
        now = None if new is None or new["kind"] != "Pod" else new["metadata"]["uid"]
        if was is not None and was != now:
            self._first.pop(was, None)
        if new is not None and now is not None and was != now:
            self._first[now] = version_of(new), asyncio.get_running_loop().time()
