"""Enforces MAX_SANDBOXES.

Exact within one process. N processes that create concurrently can exceed the limit by up to N.
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
    """Counts a cluster's sandboxes and the creates in progress. `most` 0 means no limit."""

    def __init__(self, cluster: Cluster, most: int) -> None:
        self._cluster = cluster
        self._most = most
        self._making: set[str] = set()

    @contextlib.contextmanager
    def making(self, sandbox_id: str) -> Iterator[None]:
        """Release the sandbox's claim, if any, when the block ends."""
        try:
            yield
        finally:
            self._making.discard(sandbox_id)

    async def claim(self, sandbox_id: str) -> None:
        """Reserve room for the sandbox before its Pod is applied; raises TooManySandboxes at the limit."""
        if not self._most or sandbox_id in self._making:
            return
        others = await self._others(sandbox_id)
        # No await from here on, so that no other create counts in between.
        count = len(others | self._making)
        if count >= self._most:
            raise TooManySandboxes(count, self._most)
        self._making.add(sandbox_id)

    async def _others(self, sandbox_id: str) -> set[str]:
        pods = (
            obj for obj in await self._cluster.all_objects() if obj["kind"] == "Pod" and not kube.is_terminating(obj)
        )
        return {one for pod in pods if (one := kube.sandbox_id_of(pod)) is not None and one != sandbox_id}
