"""Which cluster decides about an id, by this replica's file and the clusters' records of names. Pure.

A change of names is announced in the record of every cluster before any Pod is looked for, and an id is created only
while its home is the same by every list in the record of that home. So at most one cluster permits creates of an id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sandboxes.errors import ClusterUnavailable
from sandboxes.fleet.markers import UNKNOWN, Record
from sandboxes.fleet.protocol import ClusterAway
from sandboxes.fleet.rendezvous import home
from sandboxes.fleet.twins import find_twins

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
        # The uid of the record of each cluster, by name: the same one for names of the same cluster.
        self.uids: dict[str, str] = {}
        self.read(members)

    def note_file(self, members: Iterable[Member]) -> None:
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

    def hear(self, name: str, record: Record | None) -> None:
        """Note which record this cluster has."""
        self.uids[name] = "" if record is None else record.uid

    def twins(self) -> dict[str, str]:
        """Return the entries that are the same cluster as an earlier one, which they name. Lost ones do not count."""
        return find_twins((name for name, one in self.members.items() if not one.lost), self.uids)

    def is_same(self, name: str, other: str) -> bool:
        """Whether both entries are one cluster, as far as it is known."""
        twins = self.twins()
        return twins.get(name, name) == twins.get(other, other)

    def apart(self, names: Iterable[str]) -> list[str]:
        """Return the names without those that are the same cluster as an earlier one."""
        twins = self.twins()
        return [name for name in names if name not in twins]

    def note(self, record: Record | None) -> None:
        """Remember the record if it is the newest one."""
        if record is not None and record.epoch > self.newest.epoch:
            self.newest = record

    def review(self, records: Iterable[Record | None], connected: Iterable[str] = ()) -> bool:
        """Compare all records that could be read with the file; whether they agree.

        If not, no list that one of them has may give another home to an id that is created. They don't agree, either,
        if one calls a cluster unlisted that this replica can ask (`connected`), or if one calls a cluster unlisted or
        taken out whose entry is back: until a change has read what an unlisted one has, no list with it may give
        another home to an id that is told to be nowhere.
        """
        known = [record or Record() for record in records]
        askable = {*self.members, *connected}
        for record in known:
            self.note(record)
        agreed = {(record.names, record.coming, record.epoch) for record in known} == {
            (self.names, (), self.newest.epoch)
        } and not any(record.unlisted & askable or record.taken_out & self.members.keys() for record in known)
        if agreed:
            self.unlisted = frozenset[str]().union(*(record.unlisted for record in known))
        lists = {names for record in known for names in record.lists if names}
        lists |= {names for record in known for names in record.former if names & record.unlisted & askable}
        self.doubtful = frozenset() if agreed else frozenset(lists)
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

    def unasked(self) -> str | None:
        """Return an unlisted cluster, if any, for a sandbox whose home is lost.

        The marker of that home may name it, and no change of names has looked there.
        """
        return min(self.unlisted, default=None)

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

    def out(self, record: Record | None) -> frozenset[str]:
        """Return the lost clusters that were taken out of the file: nothing on them is a sandbox any more.

        Only who has read both versions of the file knows that, and has written it onto the `record` that is read with a
        marker. Another name that the file lacks may be of a newer version. One that a list names may have joined again.
        """
        known = self.taken_out | (record.taken_out if record is not None else frozenset())
        return frozenset(known).difference(
            self.members, self.strangers(), *(record.lists if record is not None else ())
        )

    def as_read(self, marker: Marker, record: Record | None) -> Marker:
        """Return what the marker says, by the record of the cluster that has it, if it names one that is `out`.

        It says nothing then, as if it were `pending`. If it was made to replace a sandbox, and its create has not
        returned one, that sandbox is what is left. If what it replaces is on such a cluster, it replaces nothing.
        """
        out = self.out(record)
        former, _, uid = marker.replaces.partition("/")
        if marker.state == "pending" or marker.cluster not in out:
            return replace(marker, replaces="") if former in out else marker
        if marker.is_made or not former or former in out:
            return replace(marker, state="pending")
        return replace(marker, cluster=former, uid="" if uid == UNKNOWN else uid, replaces="")

    def believed(self, look: Look) -> Look:
        """Return what was read of a cluster, with its marker `as_read`."""
        return look if look.marker is None else replace(look, marker=self.as_read(look.marker, look.record))

    def permits(self, sandbox_id: str, cluster: str, record: Record | None) -> bool:
        """Whether the cluster, whose record this is, is the only one that decides about the id now.

        A cluster that was lost meanwhile has an old record: the newest names count, too.
        """
        if record is None or not record.names or record.taken_out & self.names:
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
