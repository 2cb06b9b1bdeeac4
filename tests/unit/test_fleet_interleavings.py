"""Two replicas of the directory, interleaved at every await point by schedules, against what callers must never see.

Mutated protocols show that these schedules find the faults that each part of the protocol prevents.
"""

# ruff: noqa: ARG002 - a mutated method has the arguments of its original

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from sandboxes.errors import ObjectsChanged
from sandboxes.fleet.directory import Directory
from sandboxes.fleet.markers import Marker
from sandboxes.fleet.placement import Placement, _Placing
from sandboxes.fleet.protocol import Made, Member, Wanted
from sandboxes.fleet.rendezvous import home
from tests.conftest import few
from tests.unit.fleet_world import Broken, Fate, MemoryCluster, Replica, Task, World

SEEDS = 1500
NAMES = ("a", "b", "c")
# The home is known, so that other clusters are chosen on purpose.
ID = "x"
HOME = home(ID, NAMES)
OTHER, THIRD = (name for name in NAMES if name != HOME)


def explore(
    seed: int,
    directory: type[Directory] = Directory,
    placement: type[Placement] = Placement,
    world_type: type[World] = World,
    replica_type: type[Replica] = Replica,
) -> None:
    """Run a few operations on one id, in an order and with faults that the seed decides. Raises Broken."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    world = world_type()
    world.add(*NAMES)
    replicas = [replica_type(world, directory, placement) for _ in range(2)]
    members = [Member(name) for name in NAMES]
    for replica in replicas:
        Task("file", replica.read_file(members)).run()
    has_faults = chance.random() < 0.3
    is_full = chance.random() < 0.3
    tasks: list[Task] = []
    for _ in range(chance.randint(4, 12)):
        replica = chance.choice(replicas)
        if is_full:
            world.clusters[chance.choice(NAMES)].room = chance.choice([0, 100])
            # Often: a Pod is moved only if two creates have made it on a cluster that has no node for it.
            world.clusters[chance.choice(NAMES)].cramped = chance.random() < 0.7
        wanted = Wanted(chance.choice([HOME, OTHER, THIRD, None]))
        what = chance.choice(["create", "create", "create", "create", "get", "delete", "round", "list"])
        match what:
            case "create":
                tasks.append(Task(f"create on {wanted.cluster}", replica.create(ID, wanted, waits=is_full)))
            case "get":
                tasks.append(Task(what, replica.get(ID)))
            case "delete":
                tasks.append(Task(what, replica.delete(ID)))
            case "round":
                tasks.append(Task(what, replica.round()))
            case _:
                tasks.append(Task(what, replica.list()))
        for _ in range(chance.choice([0, 1, 5, 20, 60])):
            tasks = [task for task in tasks if not task.is_over]
            if not tasks:
                break
            # Long runs of one task reach far apart states that single steps rarely do.
            task = chance.choice(tasks)
            for _ in range(chance.choice([1, 1, 2, 4, 8])):
                if not task.is_over:
                    fates: list[Fate] = ["refused", "lost", "late"]
                    task.step(chance.choice(fates) if has_faults and chance.random() < 0.1 else "done")
                    world.check(ID)
            if has_faults and chance.random() < 0.02:
                task.kill()
            if world.late and chance.random() < 0.2:
                _, effect = world.late.pop(chance.randrange(len(world.late)))
                arrive(effect)
                world.check(ID)
    while tasks := [task for task in tasks if not task.is_over]:
        chance.choice(tasks).step()
        world.check(ID)
    Task("get", replicas[0].get(ID)).run()


def arrive(effect: Callable[[], object]) -> None:
    try:
        effect()
    except Broken:
        raise
    except Exception:  # noqa: S110 - its caller has given up
        pass


def first_broken(
    directory: type[Directory] = Directory,
    placement: type[Placement] = Placement,
    world_type: type[World] = World,
    replica_type: type[Replica] = Replica,
    seeds: int = SEEDS,
) -> str:
    """Return what the first schedule that breaks a promise says; empty if none does."""
    for seed in range(seeds):
        try:
            explore(seed, directory, placement, world_type, replica_type)
        except Broken as broken:
            return f"{seed}: {broken}"
    return ""


def test_no_schedule_breaks_a_promise() -> None:
    assert first_broken(seeds=few(SEEDS)) == ""


class WithoutHomeRead(Placement):
    """Makes its marker `placed` without reading the home after `pending`."""

    async def _mark(self, placing: _Placing, target: str, marker: Marker | None) -> bool:
        if marker is None:
            pending = Marker(placing.sandbox_id, target, "pending", self._new_token())
            try:
                marker = await self._directory.asked(placing.home).create_marker(pending)
            except ObjectsChanged:
                return False
        placed = replace(marker, cluster=target, state="placed")
        return await self._update(placing.home, placed) is not None


class WithoutMarkerRead(Placement):
    """Answers as soon as the Pod is made."""

    async def _settle(self, placing: _Placing, target: str, made: Made) -> bool | None:
        return True


class DeletesPlaced(Placement):
    """Deletes the marker that it finds beside its Pod at home, also a `placed` one."""

    async def _settle(self, placing: _Placing, target: str, made: Made) -> bool | None:
        marker = (await self._look(placing)).marker
        if target == placing.home and marker is not None and marker.state == "placed":
            await self._directory.remove(placing.home, marker)
        return await super()._settle(placing, target, made)


class KeepsPending(Placement):
    """Leaves the `pending` marker that it finds beside its Pod at home."""

    async def _settle(self, placing: _Placing, target: str, made: Made) -> bool | None:
        look = await self._look(placing)
        if target == placing.home and look.marker is not None and look.marker.state == "pending":
            return look.pod is not None and look.pod.uid == made.uid
        return await super()._settle(placing, target, made)


class WithoutUids(Directory):
    """Reads the marker again, but does not write the Pod's uid into it."""

    async def confirm(self, home: str, marker: Marker, uid: str, *, is_made: bool = False) -> bool:
        return (await self.look(home, marker.sandbox_id)).marker == marker


class ByUidOnly(Placement):
    """Deletes its Pod by uid, even if another create has returned it."""

    async def _withdraw(self, placing: _Placing, target: str, made: Made) -> None:
        cluster = self._directory.clusters[target]
        assert isinstance(cluster, MemoryCluster)
        if made.is_new:
            await cluster.call(lambda: cluster.force(placing.sandbox_id, made.uid))


class MovesAtOnce(Placement):
    """Leaves the Pod that finds no node, and goes on to the next cluster."""

    async def _is_withdrawn(self, placing: _Placing, target: str, uid: str) -> bool:
        return True


class MovesBeforeItIsGone(Placement):
    """Goes on to the next cluster when the deletion of the Pod that finds no node is accepted."""

    async def _is_withdrawn(self, placing: _Placing, target: str, uid: str) -> bool:
        return await self._directory.asked(target).withdraw(placing.sandbox_id, uid)


class MovesWhatOthersHave(Placement):
    """Deletes the Pod that finds no node by its uid only."""

    async def _is_withdrawn(self, placing: _Placing, target: str, uid: str) -> bool:
        cluster = self._directory.clusters[target]
        assert isinstance(cluster, MemoryCluster)
        await cluster.call(lambda: cluster.force(placing.sandbox_id, uid))
        return True


@pytest.mark.parametrize(
    ("directory", "placement"),
    [
        (Directory, WithoutHomeRead),
        (Directory, WithoutMarkerRead),
        (Directory, DeletesPlaced),
        (Directory, KeepsPending),
        (WithoutUids, Placement),
        (Directory, ByUidOnly),
        (Directory, MovesAtOnce),
        (Directory, MovesBeforeItIsGone),
        (Directory, MovesWhatOthersHave),
    ],
)
def test_a_protocol_without_one_of_its_steps_breaks_a_promise(
    directory: type[Directory], placement: type[Placement]
) -> None:
    assert first_broken(directory, placement)
