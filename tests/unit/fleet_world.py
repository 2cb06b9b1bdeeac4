"""In-memory clusters, replicas of the directory whose steps are interleaved at every await point, and the promises.

Every call to a cluster waits at a point for its fate, which the test chooses. What a call does is done at once then.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sandboxes.errors import AlreadyThere, ClusterTimeout, ConnectionFailed, LimitReached, PreconditionFailed
from sandboxes.fleet.directory import Directory, Located
from sandboxes.fleet.homes import Homes
from sandboxes.fleet.markers import Marker, Record
from sandboxes.fleet.names import NameChange
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import ClusterAway, Look, Made, Member, Pod, Unschedulable, Wanted
from sandboxes.fleet.upkeep import Upkeep
from tests.unit.fleet_tasks import Fate, Task, point

__all__ = ["Broken", "Fate", "MemoryCluster", "Replica", "Sandbox", "Task", "World"]

T = TypeVar("T")


class Broken(AssertionError):
    """A promise is broken."""


@dataclass
class Sandbox:
    uid: str
    replaces: str = ""
    # A create that did not make it has returned it.
    is_confirmed: bool = False


@dataclass
class World:
    """The truth: all clusters, and what callers were told. `gone`: uids, by what deleted them."""

    clusters: dict[str, MemoryCluster] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    # Calls that arrive late, and deletes of failed creates.
    late: list[tuple[str, Callable[[], object]]] = field(default_factory=list)
    returned: dict[str, set[str]] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)
    gone: dict[str, str] = field(default_factory=dict)
    replaced: set[tuple[str, str]] = field(default_factory=set)
    ever_lost: set[str] = field(default_factory=set)
    # Uids of Pods whose deletion was accepted, and which may still run.
    ending: set[str] = field(default_factory=set)

    def number(self) -> str:
        return str(next(self.numbers))

    def add(self, *names: str) -> None:
        for name in names:
            self.clusters[name] = MemoryCluster(self, name)

    def alive(self, sandbox_id: str) -> dict[str, Sandbox]:
        return {name: one.sandboxes[sandbox_id] for name, one in self.clusters.items() if sandbox_id in one.sandboxes}

    def confirmed(self, sandbox_id: str) -> set[str]:
        """Return the living Pods that a create has returned."""
        return {one.uid for one in self.alive(sandbox_id).values()} & self.created

    def remove(self, cluster: str, sandbox_id: str, why: str) -> None:
        uid = self.clusters[cluster].sandboxes.pop(sandbox_id).uid
        self.gone[uid] = why
        if why in ("withdrawn", "rolled back") and uid in self.created:
            raise Broken(f"falsely deleted: {sandbox_id} on {cluster} was {why}")

    def give_up(self, sandbox_id: str) -> None:
        """Promise nothing any more of what a lost cluster has of an id that a caller has deleted."""
        lost = {one.uid for name, one in self.alive(sandbox_id).items() if name in self.ever_lost}
        self.created -= lost
        self.returned.get(sandbox_id, set()).difference_update(lost)

    def tell(self, sandbox_id: str, uid: str, *, is_create: bool) -> None:
        """Note that a caller was told of this Pod."""
        if is_create:
            if self.gone.get(uid) in ("withdrawn", "rolled back"):
                raise Broken(f"falsely deleted: {sandbox_id} was {self.gone[uid]} before it was returned")
            self.created.add(uid)
        self.returned.setdefault(sandbox_id, set()).add(uid)
        self.check(sandbox_id)

    def check(self, sandbox_id: str) -> None:
        """Never twice: of the living Pods that callers were told of, all but one are being replaced."""
        told = self.returned.get(sandbox_id, set())
        living = {(name, one.uid): one for name, one in self.alive(sandbox_id).items() if one.uid in told}
        replaced = {one.replaces for one in living.values() if one.replaces}
        left = [key for key in living if f"{key[0]}/{key[1]}" not in replaced and f"{key[0]}/unknown" not in replaced]
        if len(left) > 1:
            raise Broken(f"twice: {sandbox_id} is on {left}")


class MemoryCluster:
    """FleetCluster. `room`: Pods that it takes; `cramped`: new ones find no node."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_up, self.room, self.cramped = True, 100, False
        self.sandboxes: dict[str, Sandbox] = {}
        self.stored: dict[str, Marker] = {}
        self.names: Record | None = None

    async def call(self, effect: Callable[[], T], *, may_be_late: bool = True) -> T:
        fate = await point()
        if fate == "late" and may_be_late:
            self.world.late.append((self.name, effect))
            raise ClusterTimeout
        if not self.is_up or fate in ("refused", "late"):
            raise ConnectionFailed(f"{self.name} is away")
        result = effect()
        if fate == "lost":
            raise ConnectionFailed(f"{self.name} is away")
        return result

    def _read(self, effect: Callable[[], T]) -> Awaitable[T]:
        return self.call(effect, may_be_late=False)

    def _pod(self, sandbox_id: str) -> Pod | None:
        return Pod(one.uid, one.replaces) if (one := self.sandboxes.get(sandbox_id)) else None

    async def look(self, sandbox_id: str) -> Look:
        pod = await self._read(lambda: self._pod(sandbox_id))
        marker = await self._read(lambda: self.stored.get(sandbox_id))
        return Look(pod, marker, await self._read(lambda: self.names))

    async def record(self) -> Record | None:
        return await self._read(lambda: self.names)

    async def pods(self) -> Mapping[str, Pod]:
        return await self._read(lambda: {key: Pod(one.uid, one.replaces) for key, one in self.sandboxes.items()})

    async def markers(self) -> list[Marker]:
        return await self._read(lambda: list(self.stored.values()))

    def seen(self, sandbox_id: str) -> None:
        """Return None: without live views everything is read."""

    def seen_pods(self, *, also_parts: bool = False) -> None: ...

    def still_has(self, _record: Record) -> bool:
        return False

    seen_pod, seen_markers = seen, seen_pods

    async def make(self, sandbox_id: str, replaces: str, *, waits: bool) -> Made:
        """SandboxService.create: a Pod can be seen before its create has returned, and is rolled back if it fails.

        An apply onto a Pod that was not there when it was looked for can't be told from one that makes it.
        """

        def apply() -> Made:
            there = self.sandboxes.get(sandbox_id)
            if there is not None and (was_there or there.is_confirmed):
                there.is_confirmed = True
                return Made(there.uid, is_new=False)
            if there is not None:
                mine.append(there.uid)
                return Made(there.uid, is_new=True)
            if len(self.sandboxes) >= self.room:
                raise LimitReached("full")
            uid = f"uid-{self.world.number()}"
            self.sandboxes[sandbox_id] = Sandbox(uid, replaces)
            mine.append(uid)
            return Made(uid, is_new=True)

        mine: list[str] = []
        was_there = await self.call(lambda: sandbox_id in self.sandboxes, may_be_late=False)
        try:
            made = await self.call(apply)
            if made.is_new:
                await self.call(lambda: None)
        except (ConnectionFailed, ClusterTimeout):
            self.world.late.append(
                (self.name, lambda: [self._withdraw(sandbox_id, uid, "rolled back") for uid in mine])
            )
            raise
        # If the cluster can't be asked meanwhile, it is not known whether a node was found.
        if made.is_new and waits and await point() == "done" and self.cramped:
            raise Unschedulable(made.uid)
        return made

    def _withdraw(self, sandbox_id: str, uid: str, why: str) -> bool:
        if (there := self.sandboxes.get(sandbox_id)) is None or there.uid != uid:
            return True
        if there.is_confirmed:
            return False
        self.world.remove(self.name, sandbox_id, why)
        return True

    def force(self, sandbox_id: str, uid: str) -> None:
        """Delete as `withdraw`, but whoever has returned the Pod."""
        if sandbox_id in self.sandboxes and self.sandboxes[sandbox_id].uid == uid:
            self.world.remove(self.name, sandbox_id, "withdrawn")

    async def withdraw(self, sandbox_id: str, uid: str, *, until_gone: bool = False) -> bool:
        def withdraw() -> bool:
            was_gone = uid in self.world.gone
            is_over = self._withdraw(sandbox_id, uid, "withdrawn")
            if is_over and not was_gone:  # one that was proven gone does not end again
                self.world.ending.add(uid)
            return is_over

        if not await self.call(withdraw):
            return False
        if until_gone:
            await self.call(lambda: self.world.ending.discard(uid))
        return True

    async def confirm_pod(self, sandbox_id: str, uid: str) -> bool:
        def confirm() -> bool:
            there = self.sandboxes.get(sandbox_id)
            if there is None or there.uid != uid:
                return False
            there.is_confirmed = True
            return True

        return await self.call(confirm)

    async def delete(self, sandbox_id: str) -> None:
        def delete() -> None:
            if sandbox_id in self.sandboxes:
                self.world.remove(self.name, sandbox_id, "deleted")
                self.world.give_up(sandbox_id)

        await self.call(delete, may_be_late=False)

    async def delete_pod(self, sandbox_id: str, uid: str) -> None:
        def delete() -> None:
            there = self.sandboxes.get(sandbox_id)
            if there is not None and there.uid == uid:
                if (self.name, uid) not in self.world.replaced:
                    raise Broken(f"falsely deleted: {sandbox_id} on {self.name} was not replaced")
                self.world.remove(self.name, sandbox_id, "replaced")

        await self.call(delete)

    def _store(self, marker: Marker) -> Marker:
        stored = replace(marker, version=self.world.number())
        self.stored[marker.sandbox_id] = stored
        return stored

    def _expect(self, marker: Marker) -> None:
        there = self.stored.get(marker.sandbox_id)
        if there is None or there.version != marker.version:
            raise PreconditionFailed("changed")

    async def create_marker(self, marker: Marker) -> Marker:
        def create() -> Marker:
            if marker.sandbox_id in self.stored:
                raise AlreadyThere("there")
            return self._store(marker)

        return await self.call(create)

    async def update_marker(self, marker: Marker) -> Marker:
        def update() -> Marker:
            self._expect(marker)
            return self._store(marker)

        return await self.call(update)

    async def delete_marker(self, marker: Marker) -> None:
        def delete() -> None:
            self._expect(marker)
            del self.stored[marker.sandbox_id]

        await self.call(delete)

    async def put_record(self, record: Record) -> Record:
        def put() -> Record:
            if record.version != (self.names.version if self.names else ""):
                raise PreconditionFailed("changed")
            self.names = replace(record, version=self.world.number(), uid=f"record-of-{self.name}")
            return self.names

        return await self.call(put)


class Replica:
    """One process: its view of the file, and its operations as callers see them, held against the truth."""

    def __init__(
        self,
        world: World,
        directory: type[Directory] = Directory,
        placement: type[Placement] = Placement,
        homes: type[Homes] = Homes,
        change: type[NameChange] = NameChange,
    ) -> None:
        self.world = world
        self.homes = homes()
        self.connected: Mapping[str, MemoryCluster] = world.clusters
        # Those of its file, and those that have just left it: see Fleet.
        self.clusters: dict[str, MemoryCluster] = {}
        self.file: set[str] = set()
        self.directory = directory(self.clusters, self.homes, self.pause)
        self.placement = placement(self.directory, world.number, lambda *_: "")
        self.change = change(self.directory, world.number)
        self.upkeep = Upkeep(self.directory)

    async def pause(self) -> None:
        await point()

    async def read_file(self, members: list[Member]) -> None:
        names = {one.name for one in members}
        self.file = names
        self.clusters |= {name: self.connected[name] for name in self.file}
        if not await self.directory.adopt(members):
            await self.change.run()
        # As Fleet: one that leaves is still needed until the directory is complete without it.
        for name in self.clusters.keys() - self.file - names:
            del self.clusters[name]

    async def create(self, sandbox_id: str, wanted: Wanted, *, waits: bool = False) -> Located:
        moved: set[str] = set()

        async def make(cluster: str, replaces: str, *, may_move: bool) -> Made:
            there = {one.uid for one in self.world.alive(sandbox_id).values() if not one.is_confirmed}
            if left := moved & (there | self.world.ending):
                raise Broken(f"twice: {sandbox_id} is made on {cluster} while {left} may run")
            try:
                made = await self.world.clusters[cluster].make(sandbox_id, replaces, waits=waits and may_move)
            except Unschedulable as error:
                moved.add(error.uid)
                raise
            except ConnectionFailed as error:  # as Fleet.create
                raise ClusterAway(cluster) from error
            lost, _, uid = replaces.partition("/")
            if made.is_new and uid:
                self.world.replaced.add((lost, uid))
            return made

        found = await self.placement.create(sandbox_id, wanted, make)
        self.world.tell(sandbox_id, found.uid, is_create=True)
        return found

    async def get(self, sandbox_id: str) -> Located:
        before = self.world.confirmed(sandbox_id)
        found = await self.directory.locate(sandbox_id)
        if found.kind != "nowhere":
            self.world.tell(sandbox_id, found.uid, is_create=False)
        elif left := before & self.world.confirmed(sandbox_id):
            raise Broken(f"falsely 404: {sandbox_id} has {left}")
        return found

    async def delete(self, sandbox_id: str) -> bool:
        before = self.world.confirmed(sandbox_id)
        existed = await self.directory.delete(sandbox_id)
        on = {one.uid: name for name, one in self.world.alive(sandbox_id).items()}
        left = {uid for uid in before & self.world.confirmed(sandbox_id) if on[uid] not in self.world.ever_lost}
        if left:
            raise Broken(f"falsely 200: {sandbox_id} has {left}")
        return existed

    async def list(self) -> None:
        if not self.homes.names:  # the service begins to answer after that
            return
        # A cluster that another replica has added is not known until this one reads a record, or the file.
        known = self.clusters.keys() | self.homes.strangers()
        ids = {sandbox_id for one in self.world.clusters.values() for sandbox_id in one.sandboxes}
        before = {(sandbox_id, uid) for sandbox_id in ids for uid in self.world.confirmed(sandbox_id)}
        listing = await self.directory.list_all()
        for sandbox_id, uid in before:
            on = known & {name for name, one in self.world.alive(sandbox_id).items() if one.uid == uid}
            if on and sandbox_id not in listing.found and not on & set(listing.incomplete):
                raise Broken(f"not in the list: {sandbox_id} has {uid} on {on}")

    async def round(self) -> None:
        await self.upkeep.remove_replaced()
        await self.upkeep.remove_markers()
