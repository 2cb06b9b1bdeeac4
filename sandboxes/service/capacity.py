"""Enforces MAX_SANDBOXES, and `max_sandboxes` of each cluster of CLUSTERS_FILE.

Exact within one process. N processes that create concurrently can exceed the limit by up to N.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import ProvisionerError, TooManySandboxes
from sandboxes.logs import name_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject


class Capacity:
    """Counts a cluster's sandboxes and the creates in progress. `most` 0 means no limit.

    `total`: the limit of all clusters together, if there may be several.
    """

    def __init__(self, cluster: Cluster, most: int) -> None:
        self._cluster = cluster
        self._most = most
        self._making: set[str] = set()
        self.total: TotalCapacity | None = None
        # Of several clusters: its name, for log lines.
        self.name: str | None = None

    @contextlib.contextmanager
    def making(self, sandbox_id: str) -> Iterator[None]:
        """Release the sandbox's claim, if any, when the block ends."""
        try:
            yield
        finally:
            self._making.discard(sandbox_id)

    async def claim(self, sandbox_id: str) -> None:
        """Reserve room for the sandbox before its Pod is applied; raises TooManySandboxes at the limit."""
        total = self.total if self.total is not None and self.total.most else None
        if not (self._most or total) or sandbox_id in self._making:
            return
        others = await self._others(sandbox_id)
        elsewhere = await total.unseen_beside(self) if total else {}
        # No await from here on, so that no other create counts in between.
        count = len(others | self._making)
        if self._most and count >= self._most:
            raise TooManySandboxes(count, self._most)
        if total:
            count += sum(len(ids | one.known) for one, ids in elsewhere.items())
            if count >= total.most:
                raise TooManySandboxes(count, total.most)
        self._making.add(sandbox_id)

    @property
    def known(self) -> set[str]:
        """Ids of the creates that have room, and of the sandboxes in the live view, however old it is."""
        return self._making | {one for pod, _ in self._cluster.known_all() if (one := _counted(pod)) is not None}

    async def unseen(self) -> set[str]:
        """Return the ids that only a read shows, without a live view; empty if the cluster gives no answer in time.

        Call it in a task of its own.
        """
        if self._cluster.has_informer:
            return set()
        if self.name is not None:
            name_cluster(self.name)  # not that of the cluster on which the sandbox is made
        try:
            async with within(self._cluster.deadlines.ready):
                return await self._others("")
        except ProvisionerError:
            return set()

    async def _others(self, sandbox_id: str) -> set[str]:
        pods = (obj for obj in await self._cluster.all_objects() if obj["kind"] == "Pod")
        return {one for pod in pods if (one := _counted(pod)) is not None and one != sandbox_id}


class TotalCapacity:
    """The limit of all clusters together; `most` 0 means no limit. `rooms` returns the capacity of each cluster.

    A cluster that can't be asked counts with what is known of it, and holds up no create elsewhere.
    """

    def __init__(self, most: int, rooms: Callable[[], Iterable[Capacity]]) -> None:
        self.most = most
        self._rooms = rooms

    async def unseen_beside(self, room: Capacity) -> dict[Capacity, set[str]]:
        """Return what `unseen` returns for each cluster but one."""
        others = [one for one in self._rooms() if one is not room]
        return dict(zip(others, await asyncio.gather(*(one.unseen() for one in others)), strict=True))


def _counted(pod: KubeObject) -> str | None:
    """Return the id of the Pod's sandbox; None if it does not count."""
    return None if kube.is_terminating(pod) else kube.sandbox_id_of(pod)
