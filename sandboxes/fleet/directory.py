"""Says where a sandbox is, on proof, and deletes it there.

The home of an id decides: its Pod there, or a marker there that names another cluster. Whoever can't ask it does not
know. While the list of clusters is being changed, ids whose home changes are looked for in every cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from sandboxes.errors import ObjectsChanged, ProvisionerError
from sandboxes.fleet.asked import Asked
from sandboxes.fleet.doubles import DoublesLog
from sandboxes.fleet.markers import UNKNOWN, marker_name
from sandboxes.fleet.protocol import (
    AskedCluster,
    ClusterAway,
    ClusterViews,
    FleetCluster,
    KeepsMoving,
    Look,
    Member,
    Pod,
    Rehoming,
)
from sandboxes.fleet.record_reader import RecordReader
from sandboxes.fleet.records import Records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from sandboxes.fleet.homes import Homes
    from sandboxes.fleet.markers import Marker, Record

# A round is repeated if another replica changed what was read; after this many, give up.
MAX_ROUNDS = 8


@dataclass(frozen=True)
class Located:
    """Where a sandbox is. `there`: in its home. `nowhere` is proven; `cluster` is its home then, and `uid` empty."""

    kind: Literal["there", "elsewhere", "nowhere"]
    cluster: str
    uid: str = ""


@dataclass(frozen=True)
class Listing:
    """All sandboxes, by id. `incomplete`: clusters that could not be asked. `doubled`: ids found on several."""

    found: dict[str, Located]
    incomplete: list[str]
    doubled: dict[str, list[str]] = field(default_factory=dict)


class Directory:
    """The directory as one replica sees it. `clusters`: by name, also those that have just left the file.

    `pause` waits a moment before another round. Raises ClusterAway where only an unreachable cluster knows.
    """

    def __init__(
        self, clusters: Mapping[str, FleetCluster], homes: Homes, pause: Callable[[], Awaitable[None]]
    ) -> None:
        # Without their calls, which are made by `asked` only: so each error of a cluster names it.
        self.clusters: Mapping[str, ClusterViews] = clusters
        self._asked: Mapping[str, AskedCluster] = clusters
        self.homes = homes
        self.pause = pause
        self.doubles = DoublesLog()
        self.records = Records(homes)
        self._reader = RecordReader(homes, self.asked)

    def asked(self, name: str) -> AskedCluster:
        """Return the cluster of this name, to ask it; raises ClusterAway if the file lacks it, maybe only just now."""
        return Asked(name, self.homes.among(self._asked, name))

    async def adopt(self, members: Iterable[Member]) -> bool:
        """Take the entries of the file, after a start and after each change; return whether all records agree to it.

        If they do not, a NameChange is due. Raises ClusterAway, and keeps the former entries, if no cluster answers or
        all are lost, or if one that was lost and is not any more does not: its record may be as old as its loss.
        """
        entries = list(members)
        read = await self._reader.read(self.clusters, entries)
        for name, record in read.live.items():
            self.records.hear(name, record)
        if not read.found:
            raise ClusterAway(read.silent[0] if read.silent else entries[0].name, lost=not read.silent)
        self.homes.read(entries)
        self.records.note_unlisted(read.found, read.silent, self.clusters)
        is_agreed = self.homes.review(read.found.values(), self.clusters)
        # A record that had to be told is another version by now.
        is_same = is_agreed and await self.records.note_taken_out(read.found, self.asked)
        self._reader.note(self.clusters, entries, read, agreed=is_same)
        return is_agreed

    async def locate(self, sandbox_id: str) -> Located:
        """Return where the sandbox is; `nowhere` is a proof. Raises ClusterAway, Rehoming or KeepsMoving."""
        home = self.homes.home(sandbox_id)
        for _ in range(MAX_ROUNDS):
            look = await self.look(home, sandbox_id)
            if not self.homes.permits(sandbox_id, home, look.record):
                return await self._search(sandbox_id)
            found = await self._resolve(home, look)
            if found is not None:
                lost = self.homes.lost_home(sandbox_id)
                if found.kind == "nowhere" and lost is not None:
                    raise self.homes.away(lost)
                return found
            await self.pause()
        raise KeepsMoving

    def seen(self, sandbox_id: str) -> Located | None:
        """Return where the sandbox is, by the live views alone; None if they do not show it. Never `nowhere`.

        For reads only: whatever creates, places or deletes reads the clusters. A Pod at home counts if no marker was
        there when it was made: one that is made later gives way to it. A marker counts if it has the uid of a Pod that
        its cluster has: no other replica moves or removes it while that lives.
        """
        if not self.homes.names:
            return None
        home = self.homes.home(sandbox_id)
        look = self.clusters[home].seen(sandbox_id) if home in self.clusters else None
        if look is None:
            return None
        self.homes.note(look.record)
        if not self.homes.permits(sandbox_id, home, look.record):
            return None
        if look.marker is None:
            return None if look.pod is None else Located("there", home, look.pod.uid)
        return self._seen_by(look.marker, home)

    def _seen_by(self, marker: Marker, home: str) -> Located | None:
        name = marker.cluster
        if marker.state == "pending" or name not in self.clusters or self.homes.is_lost(name):
            return None
        pod = self.clusters[name].seen_pod(marker.sandbox_id)
        if pod is None or pod.uid != marker.uid:
            return None
        return Located("there" if name == home else "elsewhere", name, pod.uid)

    async def look(self, cluster: str, sandbox_id: str) -> Look:
        """Read the cluster. Raises ClusterAway that names it if it gives no answer, is lost or not connected.

        The record is the same before the Pod and the marker are read, and after. Else a change of names could make the
        marker and complete the record in between: the look would say by a complete record that there is none.
        """
        for _ in range(MAX_ROUNDS):
            if self.homes.is_lost(cluster) or cluster not in self.clusters:
                raise self.homes.away(cluster)
            is_known, before = cluster in self.records.last, self.records.last.get(cluster)
            look = await self.asked(cluster).look(sandbox_id)
            self.records.hear(cluster, look.record)
            self.homes.note(look.record)
            if is_known and look.record == before:
                return self.homes.believed(look)
        raise KeepsMoving

    async def look_there(self, home: str, marker: Marker) -> Look:
        """Read the cluster that the marker in `home` names; see `look`."""
        self.check_listed(home, marker)
        return await self.look(marker.cluster, marker.sandbox_id)

    def check_listed(self, home: str, marker: Marker) -> None:
        """Raise ClusterAway, which says where the marker is, if it names a cluster that the file lacks."""
        if marker.cluster not in self.clusters and marker.cluster not in self.homes.members:
            raise ClusterAway(marker.cluster, unlisted=True, marker=marker_name(marker.sandbox_id), home=home)

    async def _resolve(self, home: str, look: Look) -> Located | None:
        """Return what the home says; None if another replica changed it meanwhile.

        A `pending` marker beside a Pod is removed, so that it can't become `placed`; see also `confirm`.
        """
        pod, marker = look.pod, look.marker
        if marker is None or marker.state == "pending":
            if pod is None:
                return Located("nowhere", home)
            if marker is not None and not await self.remove(home, marker):
                return None
            return Located("there", home, pod.uid)
        there = (await self.look_there(home, marker)).pod
        if there is None:
            return None if await self.restore(home, marker) else Located("nowhere", home)
        if not await self.confirm(home, marker, there.uid):
            return None
        return Located("there" if marker.cluster == home else "elsewhere", marker.cluster, there.uid)

    async def restore(self, home: str, marker: Marker) -> bool:
        """Point the marker back to the Pod that was to be replaced, if its successor was never made.

        Returns whether the home is to be read again.
        The marker's cluster was read before, and has no Pod. Raises ClusterAway if the former cluster can't be asked.
        """
        if marker.is_made or not marker.replaces:
            return False
        cluster, _, uid = marker.replaces.partition("/")
        old = (await self.look(cluster, marker.sandbox_id)).pod
        if old is None or uid not in (UNKNOWN, old.uid):
            return False
        if cluster == home:
            await self.remove(home, marker)
            return True
        try:
            restored = replace(marker, cluster=cluster, uid=old.uid, replaces="")
            await self.asked(home).update_marker(restored)
        except ObjectsChanged:
            return True
        return True

    async def confirm(self, home: str, marker: Marker, uid: str, *, is_made: bool = False) -> bool:
        """Write the Pod's uid into the marker before it is returned; False if the marker was changed.

        Then whoever has read the marker before, and not this Pod, can no longer move or remove it. `is_made`: a create
        is about to return it.
        """
        is_made = is_made or marker.is_made
        if (marker.uid, marker.is_made) == (uid, is_made):
            return True
        try:
            await self.asked(home).update_marker(replace(marker, uid=uid, is_made=is_made))
        except ObjectsChanged:
            return False
        return True

    async def remove(self, home: str, marker: Marker) -> bool:
        """Delete the marker if it is unchanged; False if it was changed."""
        try:
            await self.asked(home).delete_marker(marker)
        except ObjectsChanged:
            return False
        return True

    async def _search(self, sandbox_id: str) -> Located:
        """Look for the sandbox in every cluster, while its home changes."""
        for _ in range(MAX_ROUNDS):
            looks, away = await self._look_everywhere(sandbox_id)
            records: dict[str, Record | None] = {name: look.record for name, look in looks.items()}
            deciding = [name for name, look in looks.items() if self.homes.permits(sandbox_id, name, look.record)]
            if deciding:
                found = await self._resolve(deciding[0], looks[deciding[0]])
            else:
                found = self._judge(sandbox_id, looks, away, self.homes.all_homes(sandbox_id, records))
                again, _ = await self._look_everywhere(sandbox_id)
                if {name: look.record for name, look in again.items()} != records:
                    found = None
            if found is None:
                await self.pause()
                continue
            lost = self.homes.lost_names()
            if found.kind == "nowhere" and lost:
                raise self.homes.away(lost[0])
            return found
        raise KeepsMoving

    async def _look_everywhere(self, sandbox_id: str) -> tuple[dict[str, Look], list[str]]:
        """Return what each cluster has of the id, and the names of those that give no answer."""
        looks, away = {}, []
        for name in sorted(self.clusters):
            if self.homes.is_lost(name):
                continue
            try:
                looks[name] = await self.look(name, sandbox_id)
            except ClusterAway:
                away.append(name)
        # A replica with another file has added it.
        lists = {name for look in looks.values() if look.record for names in look.record.lists for name in names}
        away += sorted(name for name in lists - self.clusters.keys() if not self.homes.is_lost(name))
        return looks, away

    def _judge(self, sandbox_id: str, looks: Mapping[str, Look], away: list[str], homes: set[str]) -> Located | None:
        """Return what the clusters say while creates of the id are refused: by the newest complete home, else all."""
        complete = sorted(
            (since, name)
            for name, look in looks.items()
            if (since := self.homes.complete_since(sandbox_id, name, look.record)) is not None
        )
        current = self.homes.home(sandbox_id)
        if complete:
            newest = complete[-1][1]
            marker = looks[newest].marker
            target = newest if marker is None or marker.state == "pending" else marker.cluster
            pod = looks[target].pod if target in looks else None
            newer_is_away = any(name in away for name in homes)
            if pod is not None and not newer_is_away:
                return Located("there" if target == current else "elsewhere", target, pod.uid)
        found = [(name, look.pod) for name, look in looks.items() if look.pod is not None]
        if away:
            raise ClusterAway(away[0])
        if len(found) > 1:
            raise Rehoming
        if not found:
            return Located("nowhere", current)
        name, only = found[0]
        return Located("there" if name == current else "elsewhere", name, only.uid)

    async def delete(self, sandbox_id: str) -> bool:
        """Delete the sandbox wherever it is; return whether there was one. False is proven. Raises as `locate` does.

        A Pod that was left in the home beside a marker by the death of a replica is deleted, too.
        """
        home = self.homes.home(sandbox_id)
        look = await self.look(home, sandbox_id)
        if not self.homes.permits(sandbox_id, home, look.record):
            return await self._delete_everywhere(sandbox_id)
        marker, existed = look.marker, look.pod is not None
        if marker is not None and marker.state == "placed":
            there = await self.look_there(home, marker)
            existed = existed or there.pod is not None
            await self.asked(marker.cluster).delete(sandbox_id)
        if look.pod is not None and not (marker is not None and marker.state == "placed" and marker.cluster == home):
            await self.asked(home).delete(sandbox_id)
        if not existed and marker is not None and marker.replaces and not marker.is_made:
            existed = await self._delete_former(marker)
        lost = self.homes.lost_home(sandbox_id)
        if not existed and lost is not None:
            raise self.homes.away(lost)
        return existed

    async def _delete_former(self, marker: Marker) -> bool:
        """Delete the Pod that was to be replaced, if its successor was never made; return whether it was there."""
        cluster = marker.replaces.partition("/")[0]
        pod = (await self.look(cluster, marker.sandbox_id)).pod
        if pod is not None:
            await self.asked(cluster).delete(marker.sandbox_id)
        return pod is not None

    async def _delete_everywhere(self, sandbox_id: str) -> bool:
        looks, away = await self._look_everywhere(sandbox_id)
        found = [name for name, look in looks.items() if look.pod is not None]
        for name in found:
            await self.asked(name).delete(sandbox_id)
        lost = self.homes.lost_names()
        if away:
            raise ClusterAway(away[0])
        if lost and not found:
            raise self.homes.away(lost[0])
        return bool(found)

    async def list_all(self) -> Listing:
        """Return the sandboxes of all clusters. Of an id that several have, the directory's; without it, none."""
        on: dict[str, dict[str, Pod]] = {}
        incomplete = sorted(self.homes.strangers() - self.clusters.keys())
        for name in sorted(self.clusters):
            if self.homes.is_lost(name):  # asked here only: the file may be read meanwhile
                incomplete.append(name)
                continue
            try:
                pods = await self.asked(name).pods()
            except ClusterAway:
                incomplete.append(name)
                continue
            for sandbox_id, pod in pods.items():
                on.setdefault(sandbox_id, {})[name] = pod
        found, doubled = {}, {}
        for sandbox_id, pods_of in sorted(on.items()):
            if len(pods_of) > 1:
                doubled[sandbox_id] = sorted(pods_of)
                self.doubles.say(sandbox_id, pods_of)
                try:
                    found[sandbox_id] = await self.locate(sandbox_id)
                except ProvisionerError:
                    incomplete.extend(pods_of)
                continue
            ((name, pod),) = pods_of.items()
            kind: Literal["there", "elsewhere"] = "there" if name == self.homes.home(sandbox_id) else "elsewhere"
            found[sandbox_id] = Located(kind, name, pod.uid)
        found = {sandbox_id: one for sandbox_id, one in found.items() if one.kind != "nowhere"}
        return Listing(found, sorted(set(incomplete)), doubled)
