"""A cluster whose errors name it: the only way in which the directory asks a cluster.

Whoever reads or writes through it need not think of the cluster's name, and a caller always learns which one is away.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    KeepsChanging,
    ObjectsChanged,
    StillDeleting,
)
from sandboxes.fleet.protocol import ClusterAway

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandboxes.fleet.markers import Marker, Record
    from sandboxes.fleet.protocol import AskedCluster, Look, Pod

# Answers of a cluster that can be asked, although their classes say that it is unavailable.
_ANSWERS = (ObjectsChanged, StillDeleting, KeepsChanging)


class Asked:
    """The calls of an AskedCluster. One without an answer raises ClusterAway, which names the cluster.

    Refused credentials are none, as no request gets past them. OutOfTime is left alone: see there.
    """

    def __init__(self, name: str, cluster: AskedCluster) -> None:
        self._name = name
        self._cluster = cluster

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (*_ANSWERS, ClusterAway):
            raise
        except (ClusterUnavailable, ClusterTimeout) as error:
            raise ClusterAway(self._name, detail=error.detail) from error
        except ClusterRefused as error:
            if error.refuses_all:
                raise ClusterAway(self._name, detail=error.detail) from error
            raise

    async def look(self, sandbox_id: str) -> Look:
        """See AskedCluster.look."""
        with self._named():
            return await self._cluster.look(sandbox_id)

    async def record(self) -> Record | None:
        """See AskedCluster.record."""
        with self._named():
            return await self._cluster.record()

    async def pods(self) -> Mapping[str, Pod]:
        """See AskedCluster.pods."""
        with self._named():
            return await self._cluster.pods()

    async def markers(self) -> list[Marker]:
        """See AskedCluster.markers."""
        with self._named():
            return await self._cluster.markers()

    async def withdraw(self, sandbox_id: str, uid: str, *, until_gone: bool = False) -> bool:
        """See AskedCluster.withdraw."""
        with self._named():
            return await self._cluster.withdraw(sandbox_id, uid, until_gone=until_gone)

    async def confirm_pod(self, sandbox_id: str, uid: str, *, is_new: bool) -> bool:
        """See AskedCluster.confirm_pod."""
        with self._named():
            return await self._cluster.confirm_pod(sandbox_id, uid, is_new=is_new)

    async def delete_unreturned(self, sandbox_id: str, uid: str) -> bool:
        """See AskedCluster.delete_unreturned."""
        with self._named():
            return await self._cluster.delete_unreturned(sandbox_id, uid)

    async def delete(self, sandbox_id: str) -> None:
        """See AskedCluster.delete."""
        with self._named():
            await self._cluster.delete(sandbox_id)

    async def delete_pod(self, sandbox_id: str, uid: str) -> None:
        """See AskedCluster.delete_pod."""
        with self._named():
            await self._cluster.delete_pod(sandbox_id, uid)

    async def create_marker(self, marker: Marker) -> Marker:
        """See AskedCluster.create_marker."""
        with self._named():
            return await self._cluster.create_marker(marker)

    async def update_marker(self, marker: Marker) -> Marker:
        """See AskedCluster.update_marker."""
        with self._named():
            return await self._cluster.update_marker(marker)

    async def delete_marker(self, marker: Marker) -> None:
        """See AskedCluster.delete_marker."""
        with self._named():
            await self._cluster.delete_marker(marker)

    async def put_record(self, record: Record) -> Record:
        """See AskedCluster.put_record."""
        with self._named():
            return await self._cluster.put_record(record)
