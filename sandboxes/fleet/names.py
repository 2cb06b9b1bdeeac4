"""Changes the list of clusters: announces it, makes a marker for each sandbox whose home moves, and records the names.

Any number of replicas may do so at once, also with different files: each step depends on the version of each cluster's
record that this change has written itself, so at most one of them completes on a cluster. A change that stops half-way
leaves ids whose home moves without creates, until this or another replica completes one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sandboxes.errors import ObjectsChanged
from sandboxes.fleet.markers import Marker, Record, listed
from sandboxes.fleet.protocol import ClusterAway, Pod, Rehoming
from sandboxes.fleet.rendezvous import home
from sandboxes.fleet.twins import OneCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sandboxes.fleet.directory import Directory

logger = logging.getLogger(__name__)


@dataclass
class _Found:
    """All that the clusters have, by cluster and id.

    `twins`: names of clusters that are the same as another one, by which both have the same things here.
    """

    pods: dict[str, dict[str, Pod]]
    markers: dict[str, dict[str, Marker]]
    twins: Mapping[str, str] = field(default_factory=dict)

    def ids(self) -> set[str]:
        return {one for found in (self.pods, self.markers) for of_it in found.values() for one in of_it}


class NameChange:
    """Makes the directory complete for the names of this replica's file."""

    def __init__(self, directory: Directory, new_token: Callable[[], str]) -> None:
        self._directory = directory
        self._homes = directory.homes
        self._new_token = new_token

    async def run(self) -> None:
        """Complete the directory for the names of the file and record them in each cluster.

        Every cluster of the old and the new lists must answer, but for lost and unlisted ones. Raises ClusterAway that
        names one which does not, or Rehoming if another replica is changing the names, too; then it is to be run again.
        Raises OneCluster if two of the names are the same cluster.
        """
        target = self._homes.names
        try:
            before, held, twins = await self._announce(target)
            found = await self._look_for_all(held, twins)
            await self._rename(found)
            for sandbox_id in sorted(found.ids()):
                await self._bring_home(sandbox_id, target, before, found)
            epoch = max(one.epoch for one in before.values()) + 1
            unlisted = self._homes.unlisted.union(*(one.unlisted for one in before.values()))
            unlisted = unlisted.difference(self._homes.members, held)
            taken_out = self._homes.taken_out.union(*(one.taken_out for one in before.values()))
            # One that a list names may be back in another replica's file.
            named = unlisted | self._homes.members.keys() | listed(before.values())
            lists = {names for one in before.values() for names in (one.names, *one.former)} - {target}
            lists |= {names for one in before.values() for names in one.coming if names & unlisted}
            if not any(one.names for one in before.values()):
                # No record says by which list a lost cluster had its sandboxes: any sandbox may be there.
                lists |= {frozenset({one}) for one in self._homes.lost_names()}
            former = tuple(names for names in sorted(lists, key=sorted) if any(map(self._homes.is_lost, names)))
            for name, record in sorted(held.items()):
                done = Record(target, (), epoch, former, record.version, unlisted, frozenset(taken_out - named))
                self._homes.note(await self._directory.asked(name).put_record(done))
            done_all = (
                replace(one, names=target, coming=(), epoch=epoch, unlisted=unlisted, taken_out=frozenset())
                for one in held.values()
            )
            self._homes.review(done_all, self._directory.clusters)
        except ObjectsChanged as error:
            raise Rehoming from error
        logger.info("the directory is complete for the clusters %s", ", ".join(sorted(target)))

    async def _announce(self, target: frozenset[str]) -> tuple[dict[str, Record], dict[str, Record], dict[str, str]]:
        """Add the names to each record; return the records before and after, for every cluster that any list names.

        From then on no id whose home moves is created: each create reads the record after its Pod was made. One that is
        the same cluster as another of these is left out, and returned with the other's name.
        """
        before: dict[str, Record] = {}
        held: dict[str, Record] = {}
        twins: dict[str, str] = {}
        newest = self._homes.newest
        names = set(target | newest.names)
        while names - held.keys():
            # A lost one at last: it may be back, and another replica's file may say so.
            name = min(names - held.keys(), key=lambda one: (one not in target, self._homes.is_lost(one), one))
            try:
                cluster = self._directory.asked(name)
                record = await cluster.record() or Record()
                twin = next((one for one, other in held.items() if record.uid and other.uid == record.uid), None)
                if twin is not None:
                    self._directory.records.hear(name, record)
                    if name in target:
                        raise OneCluster({name: twin})
                    twins[name], before[name] = twin, before[twin]
                    names.remove(name)
                    continue
                others = tuple(one for one in record.coming if one != target)
                taken_out = record.taken_out.difference(self._homes.members)
                held[name] = await cluster.put_record(replace(record, coming=(*others, target), taken_out=taken_out))
                self._directory.records.hear(name, held[name])
            except ClusterAway:
                is_over = self._homes.is_lost(name) or name in self._homes.taken_out
                if name in target or (not is_over and name in listed([*before.values(), replace(newest, coming=())])):
                    raise
                names.remove(name)
                continue
            before[name] = record
            self._homes.note(record)
            names |= frozenset[str]().union(*record.lists)
            names |= record.unlisted & self._directory.clusters.keys()
        return before, held, twins

    async def _rename(self, found: _Found) -> None:
        """Let each marker that names a twin name the other entry of that cluster, if its sandbox is there."""
        for name, markers in found.markers.items():
            for sandbox_id, marker in markers.items():
                twin = found.twins.get(marker.cluster)
                pod = found.pods[twin].get(sandbox_id) if twin is not None else None
                if twin is not None and pod is not None and marker.uid in ("", pod.uid):
                    renamed = replace(marker, cluster=twin, token=self._new_token())
                    markers[sandbox_id] = await self._directory.asked(name).update_marker(renamed)

    async def _look_for_all(self, names: Iterable[str], twins: Mapping[str, str]) -> _Found:
        found = _Found({}, {}, twins)
        for name in sorted(names):
            found.pods[name] = dict(await self._directory.asked(name).pods())
            found.markers[name] = {one.sandbox_id: one for one in await self._directory.asked(name).markers()}
        for name, twin in twins.items():
            found.pods[name], found.markers[name] = found.pods[twin], found.markers[twin]
        return found

    async def _bring_home(
        self, sandbox_id: str, target: frozenset[str], before: Mapping[str, Record], found: _Found
    ) -> None:
        """Make the id's new home say what the old one says."""
        new_home = home(sandbox_id, target)
        if self._is_settled(sandbox_id, new_home, before):
            return
        cluster, marker = self._says(sandbox_id, new_home, before, found)
        # As it is said by a Pod: what a marker says of a twin that lacks the Pod, is not known.
        if cluster is not None and marker is None:
            cluster = found.twins.get(cluster, cluster)
        there = found.markers[new_home].get(sandbox_id)
        pod = found.pods.get(cluster, {}).get(sandbox_id) if cluster else None
        is_promised = marker is not None and bool(marker.replaces) and pod is None
        if cluster is None or (cluster == new_home and not is_promised):
            if there is not None:
                await self._directory.asked(new_home).delete_marker(there)
            return
        uid = pod.uid if pod is not None else marker.uid if marker is not None else ""
        replaces = pod.replaces if pod is not None else marker.replaces if marker is not None else ""
        is_made = (marker is not None and marker.is_made) or (pod is not None and not pod.is_unreturned)
        wanted = Marker(sandbox_id, cluster, "placed", self._new_token(), uid, replaces, is_made)
        if there is None:
            await self._directory.asked(new_home).create_marker(wanted)
        elif replace(there, token=wanted.token, version="") != wanted:
            await self._directory.asked(new_home).update_marker(replace(wanted, version=there.version))

    def _is_settled(self, sandbox_id: str, new_home: str, before: Mapping[str, Record]) -> bool:
        """Whether the id's home moves for no replica, so that creates of it go on, and its home is left alone."""
        return self._homes.permits(sandbox_id, new_home, before[new_home])

    def _says(
        self, sandbox_id: str, new_home: str, before: Mapping[str, Record], found: _Found
    ) -> tuple[str | None, Marker | None]:
        """Return the cluster on which the sandbox is, with the marker that says so, by the newest complete home.

        Where that has nothing, a marker in a home that is back after newer changes decides: see `_says_former`. Where
        there is none, either (the first list, or a sandbox that was made by hand), its only Pod decides; of several the
        one in the new home, else the first by name.
        """
        complete = sorted(
            (since, name)
            for name, record in before.items()
            if (since := self._homes.complete_since(sandbox_id, name, record)) is not None
        )
        for _, name in reversed(complete):
            marker = found.markers[name].get(sandbox_id)
            if marker is not None and marker.state == "placed":
                return marker.cluster, marker
            if sandbox_id in found.pods[name]:
                return name, None
        marker = self._says_former(sandbox_id, before, found)
        if marker is not None:
            return marker.cluster, marker
        having = sorted(name for name, pods in found.pods.items() if sandbox_id in pods and name not in found.twins)
        if len(having) > 1:
            logger.warning("sandbox %s is on several clusters: %s", sandbox_id, ", ".join(having))
        if new_home in having:
            return new_home, None
        return (having[0], None) if having else (None, None)

    def _says_former(self, sandbox_id: str, before: Mapping[str, Record], found: _Found) -> Marker | None:
        """Return the newest marker in a home that missed a change, since it was lost or unlisted then; None if none.

        No change that it missed could read it. So it may be the only thing that knows of a Pod on a cluster that can't
        be asked now, either, and is believed unless it names a cluster that was asked and lacks the Pod.
        """
        for name in sorted(before, key=lambda one: (before[one].epoch, one), reverse=True):
            names, marker = before[name].names, found.markers[name].get(sandbox_id)
            if marker is None or marker.state != "placed" or not names or home(sandbox_id, names) != name:
                continue
            if marker.cluster not in found.pods or sandbox_id in found.pods[marker.cluster]:
                return marker
        return None
