"""Clusters join, leave, are lost and come back, while two replicas with different files are at work.

As in `test_fleet_interleavings.py`: seeds decide the order of all steps, and mutated protocols must be found out.
"""

# ruff: noqa: ARG002 - a mutated method has the arguments of its original

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sandboxes.fleet.homes import Homes
from sandboxes.fleet.markers import Record
from sandboxes.fleet.names import NameChange, _Found
from sandboxes.fleet.protocol import Member, Wanted
from sandboxes.fleet.rendezvous import home
from tests.conftest import few
from tests.unit.fleet_world import Broken, Fate, Replica, Task, World
from tests.unit.test_fleet_interleavings import arrive

SEEDS = 500
NAMES = ("a", "b", "c")
# Homes by a and b, then by a, b and c: a a, b b, a c, b c.
IDS = ("s0", "s1", "s4", "s13")


class Scenario:
    """One run. The operator changes the file; the replicas read it at any time."""

    world_type = World
    replica_type = Replica

    def __init__(self, seed: int, homes: type[Homes], change: type[NameChange]) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - no secret
        self.world = self.world_type()
        self.world.add(*NAMES)
        self.replicas = [self.replica_type(self.world, homes=homes, change=change) for _ in range(2)]
        self.has_faults = self.chance.random() < 0.3
        self.file = {name: Member(name) for name in ("a", "b")}
        self.views = [dict(self.file), dict(self.file)]
        self.tasks: list[Task] = []
        for replica in self.replicas:
            Task("file", replica.read_file(list(self.file.values()))).run()

    def run(self) -> None:
        for _ in range(self.chance.randint(4, 16)):
            self.operate()
            self.begin()
            for _ in range(self.chance.choice([0, 1, 5, 20, 60])):
                self.step()
            self.tasks = [task for task in self.tasks if not task.is_over]
        for task in self.tasks:
            task.run()
            self.check()
        self.end()

    def operate(self) -> None:
        name = self.chance.choice(NAMES)
        known = all(name in view and view[name].lost for view in (self.file, *self.views))
        is_changing = any(task.what == "file" and not task.is_over for task in self.tasks)
        match self.chance.choice(["join", "join", "join", "lose", "lose", "find", "find", "weigh", "leave", "none"]):
            case "join" if name not in self.file:
                self.file = {**self.file, name: Member(name)}
            case "lose" if name in self.file and len(self.file) > 1 and not self.world.ever_lost:
                self.world.clusters[name].is_up = False
                self.world.ever_lost.add(name)
                self.file = {**self.file, name: replace(self.file[name], lost=True)}
            case "find" if known and not is_changing:
                self.world.clusters[name].is_up = True
                self.file = {**self.file, name: replace(self.file[name], lost=False)}
            case "weigh" if name in self.file:
                self.file = {**self.file, name: replace(self.file[name], weight=self.chance.choice([0, 1, 3]))}
            case "leave" if len(self.file) > 2 and not self.world.clusters[name].sandboxes:
                if all(name in view and view[name].weight == 0 for view in (self.file, *self.views)):
                    self.file = {key: one for key, one in self.file.items() if key != name}
            case _:
                pass

    def begin(self) -> None:
        who = self.chance.randrange(2)
        replica, sandbox_id = self.replicas[who], self.chance.choice(IDS)
        match self.chance.choice(
            ["create", "create", "create", "file", "file", "get", "get", "delete", "round", "list"]
        ):
            case "create":
                wanted = Wanted(self.chance.choice([None, *self.file]), recreate=self.chance.random() < 0.5)
                self.tasks.append(Task("create", replica.create(sandbox_id, wanted)))
            case "file":
                self.tasks.append(Task("file", replica.read_file(list(self.file.values()))))
                self.views[who] = self.file
            case "get":
                self.tasks.append(Task("get", replica.get(sandbox_id)))
            case "delete":
                self.tasks.append(Task("delete", replica.delete(sandbox_id)))
            case "round":
                self.tasks.append(Task("round", replica.round()))
            case _:
                self.tasks.append(Task("list", replica.list()))

    def step(self) -> None:
        running = [task for task in self.tasks if not task.is_over]
        if not running:
            return
        task = self.chance.choice(running)
        for _ in range(self.chance.choice([1, 1, 2, 4, 8, 16])):
            if not task.is_over:
                fates: list[Fate] = ["refused", "lost", "late"]
                task.step(self.chance.choice(fates) if self.has_faults and self.chance.random() < 0.1 else "done")
                self.check()
        if self.has_faults and self.chance.random() < 0.02:
            task.kill()
        late = [one for one in self.world.late if self.world.clusters[one[0]].is_up]
        if late and self.chance.random() < 0.2:
            one = self.chance.choice(late)
            self.world.late.remove(one)
            arrive(one[1])
            self.check()

    def check(self) -> None:
        for sandbox_id in IDS:
            self.world.check(sandbox_id)

    def end(self) -> None:
        """Bring all back; both replicas find what was confirmed."""
        for cluster in self.world.clusters.values():
            cluster.is_up = True
        self.file = {name: replace(one, lost=False) for name, one in self.file.items()}
        for replica in (*self.replicas, self.replicas[0]):
            task = Task("file", replica.read_file(list(self.file.values()))).run()
            assert task.error is None, task.error
        for sandbox_id in IDS:
            for replica in self.replicas:
                task = Task("get", replica.get(sandbox_id)).run()
                assert task.error is None, task.error


class Joining(Scenario):
    """One replica adds a cluster, and the other, which has not read the file, creates sandboxes that move there."""

    def operate(self) -> None:
        if "c" not in self.file:
            self.file = {**self.file, "c": Member("c")}
            self.tasks.append(Task("file", self.replicas[0].read_file(list(self.file.values()))))

    def begin(self) -> None:
        sandbox_id = self.chance.choice([one for one in IDS if home(one, NAMES) == "c"])
        if self.chance.random() < 0.5:
            self.tasks.append(Task("create", self.replicas[1].create(sandbox_id, Wanted())))
        else:
            self.tasks.append(Task("get", self.replicas[0].get(sandbox_id)))


class Leaving(Scenario):
    """A cluster is taken out of the file, whatever it has; one replica starts with that file, the other goes on."""

    def __init__(self, seed: int, homes: type[Homes], change: type[NameChange]) -> None:
        super().__init__(seed, homes, change)
        self.file = {name: Member(name) for name in NAMES}
        for replica in self.replicas:
            Task("file", replica.read_file(list(self.file.values()))).run()
        self.kinds = homes, change

    def operate(self) -> None:
        if self.chance.random() < 0.8:
            return
        name = self.chance.choice(NAMES)
        if name in self.file and len(self.file) > 1:
            self.file = {key: one for key, one in self.file.items() if key != name}
        homes, change = self.kinds
        # The tasks of the replica that ends go on: its last calls may arrive late.
        self.replicas[0] = self.replica_type(self.world, homes=homes, change=change)
        self.tasks.append(Task("file", self.replicas[0].read_file(list(self.file.values()))))

    def begin(self) -> None:
        replica, sandbox_id = self.chance.choice(self.replicas), self.chance.choice(IDS)
        match self.chance.choice(["create", "create", "get", "delete", "round", "list", "file"]):
            case "create":
                wanted = Wanted(self.chance.choice([None, *NAMES]), recreate=self.chance.random() < 0.5)
                self.tasks.append(Task("create", replica.create(sandbox_id, wanted)))
            case "get":
                self.tasks.append(Task("get", replica.get(sandbox_id)))
            case "delete":
                self.tasks.append(Task("delete", replica.delete(sandbox_id)))
            case "round":
                self.tasks.append(Task("round", replica.round()))
            case "file" if replica is self.replicas[0]:
                self.tasks.append(Task("file", replica.read_file(list(self.file.values()))))
            case _:
                self.tasks.append(Task("list", replica.list()))

    def end(self) -> None:
        self.file = {name: Member(name) for name in NAMES}
        super().end()


def first_broken(homes: type[Homes] = Homes, change: type[NameChange] = NameChange, seeds: int = 3 * SEEDS) -> str:
    """Return what the first schedule that breaks a promise says; empty if none does."""
    for number in range(seeds):
        seed, scenario = number // 3, (Scenario, Joining, Leaving)[number % 3]
        try:
            scenario(seed, homes, change).run()
        except Broken as broken:
            return f"{seed}: {broken}"
    return ""


def test_no_change_of_the_file_breaks_a_promise() -> None:
    assert first_broken(seeds=few(3 * SEEDS)) == ""


class WithoutRecord(Homes):
    """Believes the file, whatever the clusters have recorded."""

    def permits(self, sandbox_id: str, cluster: str, record: Record | None) -> bool:
        return True


class WithoutAnnouncements(Homes):
    """Does not see that the names are being changed."""

    def permits(self, sandbox_id: str, cluster: str, record: Record | None) -> bool:
        return super().permits(sandbox_id, cluster, replace(record, coming=()) if record else None)


class WithoutEpochs(Homes):
    """Believes the record of a cluster that was lost."""

    def note(self, record: Record | None) -> None:
        return

    def review(self, records: object, connected: object = ()) -> bool:
        return False


class ForgetsUnlisted(Homes):
    """Believes that a cluster that the file lacks has nothing."""

    def lost_home(self, sandbox_id: str) -> str | None:
        lost = super().lost_home(sandbox_id)
        return None if lost in self.unlisted else lost

    def lost_names(self) -> list[str]:
        return [name for name in super().lost_names() if name not in self.unlisted]

    def unlisted_home(self, sandbox_id: str) -> str | None:
        return None


class ReplacesUnlisted(Homes):
    """Makes sandboxes anew whose home another replica may still use."""

    def may_be_replaced(self, cluster: str) -> bool:
        return super().may_be_replaced(cluster) or cluster in self.unlisted

    def unlisted_home(self, sandbox_id: str) -> str | None:
        return None

    def unasked(self) -> str | None:
        return None


class WithoutMarkers(NameChange):
    """Records the names without markers for the sandboxes whose homes move."""

    async def _bring_home(self, sandbox_id: str, target: frozenset[str], before: object, found: _Found) -> None:
        return


@pytest.mark.parametrize(
    ("homes", "change"),
    [
        (WithoutRecord, NameChange),
        (WithoutAnnouncements, NameChange),
        (WithoutEpochs, NameChange),
        (ForgetsUnlisted, NameChange),
        (ReplacesUnlisted, NameChange),
        (Homes, WithoutMarkers),
    ],
)
def test_a_change_of_names_without_one_of_its_steps_breaks_a_promise(
    homes: type[Homes], change: type[NameChange]
) -> None:
    assert first_broken(homes, change)
