"""MAX_SANDBOXES: whether there is room for one more.

Exact within one process. Several processes that create at the same moment can pass the limit by as many as they are.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import TooManySandboxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.cluster.cluster import Cluster


class Capacity:
    """Counts the sandboxes of a cluster, and those that are being made; `most` 0: no limit."""

    def __init__(self, cluster: Cluster, most: int) -> None:
        self._cluster = cluster
        self._most = most
        self._making: set[str] = set()

    @contextlib.contextmanager
    def making(self, sandbox_id: str) -> Iterator[None]:
        """Let the block, which may call `claim`, make this sandbox."""
        try:
            yield
        finally:
            self._making.discard(sandbox_id)

    async def claim(self, sandbox_id: str) -> None:
        """Count the sandbox, whose Pod is about to be made; raises TooManySandboxes if there is no room for it."""
        if not self._most or sandbox_id in self._making:
            return
        others = await self._others(sandbox_id)
        # Nothing is awaited from here on, so that no other create counts in between.
        count = len(others | self._making)
        if count >= self._most:
            raise TooManySandboxes(count, self._most)
        self._making.add(sandbox_id)

    async def _others(self, sandbox_id: str) -> set[str]:
        pods = (
            obj for obj in await self._cluster.all_objects() if obj["kind"] == "Pod" and not kube.is_terminating(obj)
        )
        return {one for pod in pods if (one := kube.sandbox_id_of(pod)) is not None and one != sandbox_id}
