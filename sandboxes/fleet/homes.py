"""Which cluster decides about an id, by this replica's file and the clusters' records of names. Pure.

A change of names is announced in the record of every cluster before any Pod is looked for, and an id is created only
while its home is the same by every list in the record of that home. So at most one cluster permits creates of an id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sandboxes.errors import ClusterUnavailable
from sandboxes.fleet.markers import Record
from sandboxes.fleet.protocol import ClusterAway
from sandboxes.fleet.rendezvous import home

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandboxes.fleet.markers import Marker
    from sandboxes.fleet.protocol import Look, Member

T = TypeVar("T")


class Homes:
    """The file as this replica has read it, and the newest record that it has seen."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.members: dict[str, Member] = {}
        self.newest = Record()
        # Lists that a cluster's record had when the file was last read, if they differ from the file.
        self.doubtful: frozenset[frozenset[str]] = frozenset()
        # Clusters that were in a list when this process started, and not in its file: see Record.unlisted. What they
        # have is not known, so they count as lost, but no sandbox of theirs is made anew.
        self.unlisted: frozenset[str] = frozenset()
        # Clusters that the file took out after this process had read in it that they are lost.
        self.taken_out: set[str] = set()
        # Clusters of which the last version of the file that had them said that they are lost.
        self._said_lost: set[str] = set()
        self.read(members)

    def hear(self, members: Iterable[Member]) -> None:
        """Note a version of the file that is in force, also if the next one is before it is read: see `taken_out`."""
        for one in members:
            (self._said_lost.add if one.lost else self._said_lost.discard)(one.name)

    def read(self, members: Iterable[Member]) -> None:
        """Take the entries of the file."""
        lost = {name for name, one in self.members.items() if one.lost} | self._said_lost
        self.members = {one.name: one for one in members}
        self.taken_out = (self.taken_out | lost) - self.members.keys()
        self.names = frozenset(name for name, one in self.members.items() if not one.lost)
        self.unlisted = self.unlisted.difference(self.members)

    def note(self, record: Record | None) -> None:
        """Remember the record if it is the newest one."""
        if record is not None and record.epoch > self.newest.epoch:
            self.newest = record

    def review(self, records: Iterable[Record | None], connected: Iterable[str] = ()) -> bool:
        """Compare all records that could be read with the file; whether they agree.

        If not, no list that one of them has may give another home to an id that is created. They don't agree, either,
        if one calls a cluster unlisted that this replica can ask (`connected`), or whose entry is back.
        """
        known = [record or Record() for record in records]
        for record in known:
            self.note(record)
        agreed = {(record.names, record.coming, record.epoch) for record in known} == {
            (self.names, (), self.newest.epoch)
        } and not any(record.unlisted & {*self.members, *connected} for record in known)
        if agreed:
            self.unlisted = frozenset[str]().union(*(record.unlisted for record in known))
        lists = frozenset(names for record in known for names in record.lists if names)
        self.doubtful = frozenset() if agreed else lists
        return agreed

    def home(self, sandbox_id: str) -> str:
        """Return the id's home among the clusters that are not lost.

        Raises ClusterUnavailable before a file was read.
        """
        if not self.names:
            raise ClusterUnavailable("The list of clusters has not been read yet")
        return home(sandbox_id, self.names)

    def lost_home(self, sandbox_id: str) -> str | None:
        """Return the lost cluster, if any, that is the id's home by the whole file, or was so when it was lost.

        The sandbox may be there without a marker.
        """
        lists = (self.members.keys(), self.newest.names, *self.newest.former)
        homes = (home(sandbox_id, names) for names in lists if names)
        return next(filter(self.is_lost, homes), None) or self.unlisted_home(sandbox_id)

    def unlisted_home(self, sandbox_id: str) -> str | None:
        """Return the unlisted cluster, if any, that was the id's home; a replica with another file may still use it.

        So this replica makes no sandbox of the id, also where a marker tells it to.
        """
        lists = (*self.newest.lists, *self.newest.former)
        homes = (home(sandbox_id, names) for names in lists if names)
        return next((name for name in homes if name in self.unlisted), None)

    def is_lost(self, cluster: str) -> bool:
        """Whether the cluster is not asked, since the file says that it is lost, or since it is unlisted."""
        return self.may_be_replaced(cluster) or cluster in self.unlisted

    def may_be_replaced(self, cluster: str) -> bool:
        """Whether the file says that the cluster is lost, so that a caller may let its sandboxes be made anew."""
        return cluster in self.members and self.members[cluster].lost

    def lost_names(self) -> list[str]:
        """Return the clusters that are not asked: see `is_lost`."""
        return sorted({name for name, one in self.members.items() if one.lost} | self.unlisted)

    def strangers(self) -> frozenset[str]:
        """Return the clusters that the file lacks, and that a list names: an unlisted one, or another replica's."""
        return self.unlisted.union(*self.newest.lists, *self.doubtful).difference(self.members)

    def away(self, cluster: str) -> ClusterAway:
        """Return the error about a cluster that is lost, or that the file lacks."""
        return ClusterAway(cluster, lost=True, unlisted=cluster not in self.members)

    def among(self, clusters: Mapping[str, T], name: str) -> T:
        """Return this one of the connected clusters; raises ClusterAway if the file lacks it, perhaps only just now."""
        if name not in clusters:
            raise self.away(name)
        return clusters[name]

    def is_out(self, marker: Marker, record: Record | None) -> bool:
        """Whether the marker names a lost cluster that was taken out of the file: nothing on it is a sandbox any more.

        `record`: of the cluster that has the marker. Only who has read both versions of the file knows that: another
        name that it lacks may be of a newer version. One that a list names may have joined again.
        """
        is_promised = bool(marker.replaces) and not marker.is_made
        named = self.strangers().union(*(record.lists if record is not None else ()))
        return marker.cluster in self.taken_out - named and not is_promised

    def believed(self, look: Look) -> Look:
        """Return what was read of a cluster, with a marker that `is_out` as one that is pending: it says nothing."""
        if look.marker is None or not self.is_out(look.marker, look.record):
            return look
        return replace(look, marker=replace(look.marker, state="pending"))

    def permits(self, sandbox_id: str, cluster: str, record: Record | None) -> bool:
        """Whether the cluster, whose record this is, is the only one that decides about the id now.

        A cluster that was lost meanwhile has an old record: the newest names count, too.
        """
        if record is None or not record.names:
            return False
        lists = [self.names, *record.lists, *self.doubtful]
        if self.newest.epoch > record.epoch:
            lists.append(self.newest.names)
        return all(names and home(sandbox_id, names) == cluster for names in lists)

    def complete_since(self, sandbox_id: str, cluster: str, record: Record | None) -> int | None:
        """Return the epoch for which this cluster, whose record this is, knows each sandbox of the id; else None.

        A cluster that the newest change has not reached yet has its markers all the same: all are made before the first
        cluster records the names. One that did not hear of it, since it was lost, knows nothing.
        """
        if record is None:
            return None
        is_told = self.newest.names in record.coming
        if is_told and self.newest.epoch > record.epoch and home(sandbox_id, self.newest.names) == cluster:
            return self.newest.epoch
        is_current = is_told or record.epoch >= self.newest.epoch
        if is_current and record.names and home(sandbox_id, record.names) == cluster:
            return record.epoch
        return None

    def all_homes(self, sandbox_id: str, records: Mapping[str, Record | None]) -> set[str]:
        """Return the id's homes by every list that is known."""
        lists = {self.names, self.newest.names, *(names for one in records.values() if one for names in one.lists)}
        return {home(sandbox_id, names) for names in lists if names}
