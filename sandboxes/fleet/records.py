"""What this process has read in each cluster's record of names, and what it learns from that at its start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sandboxes.errors import ObjectsChanged
from sandboxes.fleet.markers import listed
from sandboxes.fleet.protocol import ClusterAway
from sandboxes.fleet.unlisted import log_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sandboxes.fleet.homes import Homes
    from sandboxes.fleet.markers import Record
    from sandboxes.fleet.protocol import AskedCluster

logger = logging.getLogger(__name__)


class Records:
    """The last record of each cluster, by name; None for one that has none."""

    def __init__(self, homes: Homes) -> None:
        self.last: dict[str, Record | None] = {}
        self._homes = homes
        self._heard: set[str] = set()  # clusters whose record was read after a version of the file

    def hear(self, name: str, record: Record | None) -> None:
        """Note what a cluster has now."""
        self.last[name] = record
        self._homes.hear(name, record)

    def note_unlisted(
        self, records: Mapping[str, Record | None], silent: Collection[str], connected: Iterable[str]
    ) -> None:
        """Note which clusters this process can't know, although a record names them, and log what it can't know.

        Only at the start: what a later version of the file lacks is `connected`, and what a record names later, another
        replica has added. `silent`: clusters that gave no answer.
        """
        homes = self._homes
        before, is_start = homes.unlisted, not self._heard
        found = [record for record in records.values() if record is not None]
        at_start = [record for name, record in records.items() if record is not None and name not in self._heard]
        new = frozenset[str]().union(*(names for one in at_start for names in one.lists))
        names = before.union(*(record.unlisted for record in found), new & listed(found))
        homes.unlisted = names.difference(homes.members, connected)
        self._heard |= records.keys()
        missing = [name for name, record in records.items() if record is None]
        log_unknown(sorted(homes.unlisted - before), missing if is_start else (), silent if is_start else ())

    async def note_taken_out(self, records: Mapping[str, Record | None], asked: Callable[[str], AskedCluster]) -> bool:
        """Write onto each record the clusters that were taken out, if it lacks some: another process must know it, too.

        A cluster that gives no answer is told by a later call. Returns whether no record lacked any.
        """
        is_told = True
        for name, record in records.items():
            missing = frozenset[str]() if record is None else self._homes.out(record) - record.taken_out
            if record is None or not missing:
                continue
            is_told = False
            try:
                told = await asked(name).put_record(replace(record, taken_out=record.taken_out | missing))
            except (ClusterAway, ObjectsChanged) as error:
                logger.debug("cluster %s does not know yet that %s are taken out: %s", name, sorted(missing), error)
            else:
                self.hear(name, told)
        return is_told
