"""Replicas of the directory whose steps are interleaved at every await point, held against in-memory clusters."""

from __future__ import annotations

from sandboxes.errors import ConnectionFailed
from sandboxes.fleet.directory import Directory, Located
from sandboxes.fleet.homes import Homes
from sandboxes.fleet.names import NameChange
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import ClusterAway, Made, Member, Unschedulable, Wanted
from sandboxes.fleet.upkeep import Upkeep
from tests.unit.fleet_memory import Broken, MemoryCluster, Sandbox, World
from tests.unit.fleet_tasks import Fate, Task, point

__all__ = ["Broken", "Fate", "MemoryCluster", "Replica", "Sandbox", "Task", "World"]


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
        # Those of its file, and those that have just left it: see Fleet.
        self.clusters: dict[str, MemoryCluster] = {}
        self.file: set[str] = set()
        self.directory = directory(self.clusters, self.homes, self.pause)
        self.placement = placement(self.directory, world.number, lambda *_: "")
        self.change = change(self.directory, world.number)
        self.upkeep = Upkeep(self.directory)

    async def pause(self) -> None:
        await point()

    def connect(self, name: str) -> MemoryCluster:
        return self.world.clusters[name].seat()

    async def read_file(self, members: list[Member]) -> None:
        names = {one.name for one in members}
        self.file = names
        self.clusters |= {name: self.connect(name) for name in self.file - self.clusters.keys()}
        if not await self.directory.adopt(members):
            await self.change.run()
        # As Fleet: one that leaves is still needed until the directory is complete without it.
        for name in self.clusters.keys() - self.file - names:
            del self.clusters[name]

    async def create(self, sandbox_id: str, wanted: Wanted, *, waits: bool = False) -> Located:
        moved: set[str] = set()

        async def make(cluster: str, replaces: str, *, may_move: bool) -> Made:
            if left := moved & (self.world.unreturned(sandbox_id) | self.world.ending):
                raise Broken(f"twice: {sandbox_id} is made on {cluster} while {left} may run")
            try:
                made = await self.clusters[cluster].make(sandbox_id, replaces, waits=waits and may_move)
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
            on = {name for name, one in self.world.alive(sandbox_id).items() if one.uid == uid}
            on &= known
            if on and sandbox_id not in listing.found and not on & set(listing.incomplete):
                raise Broken(f"not in the list: {sandbox_id} has {uid} on {on}")

    async def round(self) -> None:
        await self.upkeep.remove_replaced()
        await self.upkeep.remove_markers()
        await self.upkeep.remove_unreturned()
