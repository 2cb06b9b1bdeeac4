"""Reads the record of names of each cluster when the file is looked at: live, unless live views show that none changed.

Once all records agree to the file, a later look at the same file asks only the clusters whose live view does not show
the agreed record. If one of these says anything else, all are asked. So views can put off that a change is noticed, for
as long as they are believed; whatever decides about an id reads the record of its home in that very request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sandboxes.fleet.protocol import ClusterAway

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sandboxes.fleet.homes import Homes
    from sandboxes.fleet.markers import Record
    from sandboxes.fleet.protocol import AskedCluster, ClusterViews, Member


class ReadRecords(NamedTuple):
    """The records by cluster, None where there is none; of `live`, they were read now. `silent` gave no answer."""

    found: dict[str, Record | None]
    live: dict[str, Record | None]
    silent: list[str]


class RecordReader:
    """Reads the records for one replica's file. `asked`: asks the cluster of this name."""

    def __init__(self, homes: Homes, asked: Callable[[str], AskedCluster]) -> None:
        self._homes = homes
        self._asked = asked
        # The entries, and what each cluster has said, when all that answered agreed to the file; else empty.
        self._entries: set[tuple[str, bool]] = set()
        self._agreed: dict[str, tuple[ClusterViews, Record]] = {}

    async def read(self, clusters: Mapping[str, ClusterViews], entries: Collection[Member]) -> ReadRecords:
        """Return the record of each cluster that is not lost. `entries`: of the file that is to be taken.

        Raises ClusterAway if a cluster that was lost, and is not any more, gives no answer.
        """
        names = sorted(one.name for one in entries if not one.lost)
        kept = self._kept(clusters, entries)
        back = {one.name for one in entries if not one.lost and self._homes.is_lost(one.name)}
        rest = await self._ask([name for name in names if name not in kept], back)
        if not kept:
            return rest
        if all(name in self._agreed and record == self._agreed[name][1] for name, record in rest.found.items()):
            return ReadRecords({**kept, **rest.found}, rest.live, rest.silent)
        return await self._ask(names, back)

    def note(
        self, clusters: Mapping[str, ClusterViews], entries: Iterable[Member], records: ReadRecords, *, agreed: bool
    ) -> None:
        """Remember what was read, and whether it agreed to these entries."""
        self._entries = _as_set(entries) if agreed else set()
        known = {name: record for name, record in records.found.items() if record is not None and name in clusters}
        self._agreed = {name: (clusters[name], record) for name, record in known.items()} if agreed else {}

    def _kept(self, clusters: Mapping[str, ClusterViews], entries: Iterable[Member]) -> dict[str, Record | None]:
        """Return the agreed records that are still there by the live views, if the file is the same."""
        if self._entries != _as_set(entries):
            return {}
        return {
            name: record
            for name, (cluster, record) in self._agreed.items()
            # Of the same connection, whose entry may have changed; a request may have seen a newer record elsewhere.
            if clusters.get(name) is cluster and record.epoch == self._homes.newest.epoch and cluster.still_has(record)
        }

    async def _ask(self, names: Iterable[str], back: Collection[str]) -> ReadRecords:
        found: dict[str, Record | None] = {}
        silent = []
        for name in names:
            try:
                found[name] = await self._asked(name).record()
            except ClusterAway:
                if name in back:
                    raise
                silent.append(name)
        return ReadRecords(found, found, silent)


def _as_set(entries: Iterable[Member]) -> set[tuple[str, bool]]:
    return {(one.name, one.lost) for one in entries}
