"""Once all is quiet, the clusters have no Pod of an id but the directory's, and no stray marker.

Two replicas, interleaved at every await point by schedules; calls fail or arrive late, and replicas die. Protocols that
lack a part show that these schedules find what it prevents.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sandboxes.fleet.directory import Located
from sandboxes.fleet.placement import Placement, _Placing
from sandboxes.fleet.protocol import Made, Member, Wanted
from tests.unit.fleet_world import Fate, MemoryCluster, Replica, Task, World
from tests.unit.test_fleet_interleavings import HOME, ID, NAMES, OTHER, THIRD, arrive

SEEDS = 1500
# As many as find a Pod that was noted before, and a marker that was.
ROUNDS = 3


class LeftOver(AssertionError):
    """Something is left that nobody asked for."""


def play(
    seed: int, replica_type: type[Replica], *, fates: list[Fate], deaths: bool
) -> tuple[World, list[Replica], bool]:
    """Run a few operations on one id, in an order that the seed decides, and let all calls arrive.

    Returns whether a replica died, too.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    world = World()
    world.add(*NAMES)
    replicas = [replica_type(world) for _ in range(2)]
    for replica in replicas:
        Task("file", replica.read_file([Member(name) for name in NAMES])).run()
    is_full = chance.random() < 0.3
    has_died = False
    tasks: list[Task] = []
    for _ in range(chance.randint(2, 8)):
        replica = chance.choice(replicas)
        if is_full:
            world.clusters[chance.choice(NAMES)].room = chance.choice([0, 100])
            world.clusters[chance.choice(NAMES)].cramped = chance.random() < 0.7
        what = chance.choice(["create", "create", "create", "create", "get", "delete", "round"])
        match what:
            case "create":
                wanted = Wanted(chance.choice([HOME, OTHER, THIRD, None]))
                tasks.append(Task(what, replica.create(ID, wanted, waits=is_full)))
            case "get":
                tasks.append(Task(what, replica.get(ID)))
            case "delete":
                tasks.append(Task(what, replica.delete(ID)))
            case _:
                tasks.append(Task(what, replica.round()))
        for _ in range(chance.choice([0, 1, 5, 20, 60])):
            tasks = [task for task in tasks if not task.is_over]
            if not tasks:
                break
            task = chance.choice(tasks)
            for _ in range(chance.choice([1, 1, 2, 4, 8])):
                if not task.is_over:
                    task.step(chance.choice(fates) if fates and chance.random() < 0.1 else "done")
            if deaths and not task.is_over and chance.random() < 0.03:
                task.kill()
                has_died = True
            if world.late and chance.random() < 0.2:
                arrive(world.late.pop(chance.randrange(len(world.late)))[1])
    while tasks := [task for task in tasks if not task.is_over]:
        chance.choice(tasks).step()
    while world.late:
        arrive(world.late.pop(0)[1])
    return world, replicas, has_died


def explore(
    seed: int, replica_type: type[Replica] = Replica, *, fates: list[Fate] | None = None, deaths: bool = False
) -> None:
    """Play a schedule, let the reaper work, and raise LeftOver, or Broken."""
    world, replicas, has_died = play(seed, replica_type, fates=fates or [], deaths=deaths)
    for replica in replicas * ROUNDS:
        Task("round", replica.round()).run()
    found = Task("locate", replicas[0].directory.locate(ID)).run().result
    assert isinstance(found, Located)
    for name, pod in world.alive(ID).items():
        if (found.cluster, found.uid) != (name, pod.uid):
            raise LeftOver(f"{pod} on {name}, and the directory says {found}")
        # A caller whose replica died does not know: its sandbox may be there. So may one that was made late.
        if pod.uid not in world.created and not has_died and "late" not in (fates or []):
            raise LeftOver(f"{pod} on {name}, which no create has returned")
    for name, cluster in world.clusters.items():
        marker = cluster.stored.get(ID)
        if marker is not None and (name != HOME or found.kind != "elsewhere" or marker.state == "pending"):
            raise LeftOver(f"{marker} on {name}, and the directory says {found}")


ALL_FATES: list[Fate] = ["refused", "lost", "late"]
WORLDS: dict[str, Callable[[int, type[Replica]], None]] = {
    "rivals": explore,
    "faults": lambda seed, replica: explore(seed, replica, fates=["refused", "lost"]),
    "late calls": lambda seed, replica: explore(seed, replica, fates=ALL_FATES),
    "deaths": lambda seed, replica: explore(seed, replica, fates=ALL_FATES, deaths=True),
}


def first_left_over(world: str, replica_type: type[Replica] = Replica, seeds: int = SEEDS) -> str:
    """Return what the first schedule leaves over; empty if none does."""
    for seed in range(seeds):
        try:
            WORLDS[world](seed, replica_type)
        except LeftOver as left:
            return f"{seed}: {left}"
    return ""


@pytest.mark.parametrize("world", WORLDS)
def test_nothing_is_left_over_when_all_is_quiet(world: str) -> None:
    assert first_left_over(world) == ""


class ConfirmsWhatItFinds(Placement):
    """Confirms a Pod that it has found before the home agrees to it."""

    async def _may_answer(self, placing: _Placing, target: str, made: Made) -> bool:
        if not made.is_new and not made.is_confirmed:
            await self._directory.asked(target).confirm_pod(placing.sandbox_id, made.uid, is_new=False)
        return await super()._may_answer(placing, target, made)


class WithConfirmsWhatItFinds(Replica):
    def __init__(self, world: World) -> None:
        super().__init__(world, placement=ConfirmsWhatItFinds)


class WithoutCleanUp(Replica):
    """Does not delete Pods that no create has returned."""

    async def round(self) -> None:
        await self.upkeep.remove_markers()


@pytest.mark.parametrize(("world", "replica_type"), [("rivals", WithConfirmsWhatItFinds), ("deaths", WithoutCleanUp)])
def test_something_is_left_over_without_a_part_of_the_protocol(world: str, replica_type: type[Replica]) -> None:
    assert first_left_over(world, replica_type, 3 * SEEDS)


def test_a_refused_create_leaves_its_pod_if_its_own_mark_is_as_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryCluster.confirm_pod

    async def confirm(cluster: MemoryCluster, sandbox_id: str, uid: str, *, is_new: bool) -> bool:  # noqa: ARG001
        return await original(cluster, sandbox_id, uid, is_new=False)

    monkeypatch.setattr(MemoryCluster, "confirm_pod", confirm)
    assert "is_confirmed=True" in first_left_over("faults")
