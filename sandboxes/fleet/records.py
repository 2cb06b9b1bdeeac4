"""Reads the record of names of each cluster when the file is looked at: live, unless live views show that none changed.

Once all records agree to the file, a later look at the same file asks only the clusters whose live view does not show
the agreed record. If one of these says anything else, all are asked. So views can put off that a change is noticed, for
as long as they are believed; whatever decides about an id reads the record of its home in that very request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sandboxes.errors import ClusterTimeout, ClusterUnavailable
from sandboxes.fleet.protocol import ClusterAway

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sandboxes.fleet.homes import Homes
    from sandboxes.fleet.markers import Record
    from sandboxes.fleet.protocol import FleetCluster, Member

# A cluster that gives no answer.
NO_ANSWER = (ClusterUnavailable, ClusterTimeout)


class Records(NamedTuple):
    """The records by cluster, None where there is none; of `live`, they were read now. `silent` gave no answer."""

    found: dict[str, Record | None]
    live: dict[str, Record | None]
    silent: list[str]


class RecordReader:
    """Reads the records for one replica's file."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        # The entries, and what each cluster has said, when all that answered agreed to the file; else empty.
        self._entries: set[tuple[str, bool]] = set()
        self._agreed: dict[str, tuple[FleetCluster, Record]] = {}

    async def read(self, clusters: Mapping[str, FleetCluster], entries: Collection[Member]) -> Records:
        """Return the record of each cluster that is not lost. `entries`: of the file that is to be taken.

        Raises ClusterAway if a cluster that was lost, and is not any more, gives no answer.
        """
        names = sorted(one.name for one in entries if not one.lost)
        kept = self._kept(clusters, entries)
        back = {one.name for one in entries if not one.lost and self._homes.is_lost(one.name)}
        rest = await self._ask(clusters, [name for name in names if name not in kept], back)
        if not kept:
            return rest
        if all(name in self._agreed and record == self._agreed[name][1] for name, record in rest.found.items()):
            return Records({**kept, **rest.found}, rest.live, rest.silent)
        return await self._ask(clusters, names, back)

    def note(
        self, clusters: Mapping[str, FleetCluster], entries: Iterable[Member], records: Records, *, agreed: bool
    ) -> None:
        """Remember what was read, and whether it agreed to these entries."""
        self._entries = _as_set(entries) if agreed else set()
        known = {name: record for name, record in records.found.items() if record is not None and name in clusters}
        self._agreed = {name: (clusters[name], record) for name, record in known.items()} if agreed else {}

    def _kept(self, clusters: Mapping[str, FleetCluster], entries: Iterable[Member]) -> dict[str, Record | None]:
        """Return the agreed records that are still there by the live views, if the file is the same."""
        if self._entries != _as_set(entries):
            return {}
        return {
            name: record
            for name, (cluster, record) in self._agreed.items()
            # Of the same connection, whose entry may have changed; a request may have seen a newer record elsewhere.
            if clusters.get(name) is cluster and record.epoch == self._homes.newest.epoch and cluster.still_has(record)
        }

    async def _ask(self, clusters: Mapping[str, FleetCluster], names: Iterable[str], back: Collection[str]) -> Records:
        found: dict[str, Record | None] = {}
        silent = []
        for name in names:
            try:
                found[name] = await self._homes.among(clusters, name).record()
            except NO_ANSWER as error:
                if name in back:
                    raise ClusterAway(name, detail=error.detail) from error
                silent.append(name)
        return Records(found, found, silent)


def _as_set(entries: Iterable[Member]) -> set[tuple[str, bool]]:
    return {(one.name, one.lost) for one in entries}
