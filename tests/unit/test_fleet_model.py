"""The directory of several clusters against the truth, while clusters fail, the file changes and replicas die.

Every operation is interleaved with all others at every await point; a call may be refused, its answer may be lost, or
it may arrive after its caller has given up. The promises are in `fleet_memory.py` and `fleet_world.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandboxes.fleet.markers import Record
from sandboxes.fleet.protocol import Member, Wanted
from tests.unit.fleet_world import Fate, Replica, Task, World
from tests.unit.test_fleet_interleavings import arrive

NAMES = ("a", "b", "c")
# Homes by a and b, then by a, b and c: a a, b b, a c, b c.
IDS = st.sampled_from(["s0", "s1", "s4", "s13"])
WHO = st.integers(0, 1)
NAME = st.sampled_from(NAMES)
FATES: st.SearchStrategy[Fate] = st.sampled_from(["done", "done", "done", "done", "refused", "lost", "late"])
WANTED = st.builds(
    Wanted,
    cluster=st.sampled_from([None, None, *NAMES]),
    labels=st.sampled_from([{}, {}, {"region": "eu"}]),
    recreate=st.booleans(),
)
MOST_TASKS = 5


class Fleet(RuleBasedStateMachine):
    """Acts as callers, the operator, the clusters and the network."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.add(*NAMES)
        self.replicas = [Replica(self.world), Replica(self.world)]
        self.file: dict[str, Member] = {}
        # The file as each replica has read it last.
        self.views: list[dict[str, Member]] = [{}, {}]
        self.tasks: list[tuple[int, Task]] = []

    @initialize(joined=st.sampled_from([("a", "b"), NAMES]))
    def start(self, joined: tuple[str, ...]) -> None:
        self.file = {name: Member(name, labels={"region": "eu"} if name == "a" else {}) for name in joined}
        for who in (0, 1):
            self.read_file(who)
            self.tasks.pop()[1].run()

    def begin(self, who: int, task: Task) -> None:
        self.tasks.append((who, task))

    @property
    def is_busy(self) -> bool:
        return len(self.tasks) >= MOST_TASKS

    # Callers

    @precondition(lambda self: not self.is_busy)
    @rule(who=WHO, sandbox_id=IDS, wanted=WANTED, waits=st.booleans(), at_once=st.booleans())
    def create(self, who: int, sandbox_id: str, wanted: Wanted, waits: bool, at_once: bool) -> None:
        task = Task("create", self.replicas[who].create(sandbox_id, wanted, waits=waits))
        self.begin(who, task.run() if at_once else task)

    @precondition(lambda self: not self.is_busy)
    @rule(who=WHO, sandbox_id=IDS, what=st.sampled_from(["get", "get", "delete", "list"]), at_once=st.booleans())
    def ask(self, who: int, sandbox_id: str, what: str, at_once: bool) -> None:
        replica = self.replicas[who]
        match what:
            case "get":
                task = Task(what, replica.get(sandbox_id))
            case "delete":
                task = Task(what, replica.delete(sandbox_id))
            case _:
                task = Task(what, replica.list())
        self.begin(who, task.run() if at_once else task)

    @precondition(lambda self: not self.is_busy)
    @rule(who=WHO, at_once=st.booleans())
    def reap(self, who: int, at_once: bool) -> None:
        task = Task("round", self.replicas[who].round())
        self.begin(who, task.run() if at_once else task)

    # Time and the network

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), count=st.integers(1, 12), fate=FATES)
    def step(self, data: st.DataObject, count: int, fate: Fate) -> None:
        """Let one operation go on for a few calls, of which the last may go wrong."""
        _, task = data.draw(st.sampled_from(self.tasks))
        for number in range(count):
            if not task.is_over:
                task.step(fate if number == count - 1 else "done")
                self.no_sandbox_is_there_twice()

    @precondition(lambda self: any(self.world.clusters[name].is_up for name, _ in self.world.late))
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        up = [one for one in self.world.late if self.world.clusters[one[0]].is_up]
        late = data.draw(st.sampled_from(up))
        self.world.late.remove(late)
        arrive(late[1])

    @rule(name=NAME, happens=st.sampled_from(["fails", "is back", "is back", "fills", "is cramped", "has room"]))
    def change_cluster(self, name: str, happens: str) -> None:
        cluster = self.world.clusters[name]
        match happens:
            case "fails":
                cluster.is_up = False
            case "is back":
                cluster.is_up = cluster.is_up or not self.is_lost(name)
            case "fills":
                cluster.room = 0
            case "is cramped":
                cluster.cramped = True
            case _:
                cluster.room, cluster.cramped = 100, False

    @rule(who=WHO)
    def die(self, who: int) -> None:
        """End a replica at any point, and start it again; its file is read by another rule."""
        for owner, task in self.tasks:
            if owner == who:
                task.kill()
        newest = self.replicas[who].homes.newest
        self.replicas[who] = Replica(self.world)
        # A replica that starts while all clusters but one that was lost are away can't know of the loss.
        if self.world.ever_lost:
            self.replicas[who].homes.note(newest)
        self.views[who] = {}
        self.read_file(who)
        self.tasks.pop()[1].run()

    # The operator

    @rule(who=WHO, name=NAME)
    def start_without(self, who: int, name: str) -> None:
        """Take out a cluster, whatever it has, and start one replica with that file: it can't ask that cluster."""
        file = {key: one for key, one in self.file.items() if key != name}
        is_used = any(not one.lost for one in file.values())
        is_known = self.is_known_without(file, self.views[1 - who])
        if is_used and is_known and name in self.file and not self.is_lost(name):
            self.file = file
            self.die(who)

    def is_known_without(self, file: Iterable[str], view: Iterable[str]) -> bool:
        """Whether one of its clusters has a record of all that the file lacks, and that has sandboxes or is in a view.

        Else a start with this file can't know of them, nor of the other replica: it believes the file, and says so in
        the log.
        """
        used = {name for name, one in self.world.clusters.items() if one.sandboxes}.union(view).difference(file)
        records = (self.world.clusters[name].names or Record() for name in file)
        return any(used <= one.unlisted.union(*one.lists, *one.former) for one in records)

    def is_lost(self, name: str) -> bool:
        return any(name in file and file[name].lost for file in (self.file, *self.views))

    def refuses_file(self, who: int) -> bool:
        """Whether a running replica keeps its file: the new one lacks a cluster that has, or may have, sandboxes."""
        taken_out = [name for name, one in self.views[who].items() if name not in self.file and not one.lost]
        return any(self.world.clusters[name].sandboxes or not self.world.clusters[name].is_up for name in taken_out)

    @rule(who=WHO)
    def read_file(self, who: int) -> None:
        if self.refuses_file(who):
            return
        replica = self.replicas[who]
        members = list(self.file.values())

        async def read() -> None:
            await replica.read_file(members)

        self.begin(who, Task("file", read()))
        self.views[who] = self.file

    @rule(name=NAME, weight=st.sampled_from([0, 1, 3]))
    def weigh(self, name: str, weight: int) -> None:
        if name in self.file:
            self.file = {**self.file, name: replace(self.file[name], weight=weight)}

    @rule(name=NAME)
    def join(self, name: str) -> None:
        if name not in self.file:
            self.file = {**self.file, name: Member(name)}

    @rule(name=NAME)
    def leave(self, name: str) -> None:
        """Take out a cluster that is empty, and in which no replica places."""
        drained = all(name not in view or view[name].weight == 0 for view in self.views)
        if len(self.file) > 1 and name in self.file and drained and not self.world.clusters[name].sandboxes:
            self.file = {key: one for key, one in self.file.items() if key != name}

    @rule(name=NAME)
    def lose(self, name: str) -> None:
        if name in self.file and len(self.file) > 1 and not self.world.ever_lost:
            self.world.clusters[name].is_up = False
            self.world.ever_lost.add(name)
            self.file = {**self.file, name: replace(self.file[name], lost=True)}

    @rule(name=NAME)
    def find(self, name: str) -> None:
        """Bring back a lost cluster, once every replica has known of the loss, and no change is under way."""
        known = all(name in view and view[name].lost for view in (self.file, *self.views))
        if known and not any(task.what == "file" and not task.is_over for _, task in self.tasks):
            self.world.clusters[name].is_up = True
            self.file = {**self.file, name: replace(self.file[name], lost=False)}

    # The promises; the others are checked where a caller is answered

    @invariant()
    def no_sandbox_is_there_twice(self) -> None:
        for sandbox_id in self.world.returned:
            self.world.check(sandbox_id)

    @invariant()
    def forget_what_is_over(self) -> None:
        self.tasks = [one for one in self.tasks if not one[1].is_over]

    def teardown(self) -> None:
        """End everything, bring every cluster back: what was confirmed and not deleted is found by both replicas."""
        try:
            for _, task in self.tasks:
                task.run()
            for who in (0, 1, 0, 1, 0, 1):
                names = self.file.keys() | {name for one in self.replicas for name in one.homes.unlisted}
                # A start without a cluster that gets no answer does not notice that it is missing.
                names |= {name for name, one in self.world.clusters.items() if one.sandboxes}
                self.file = {name: replace(self.file.get(name, Member(name)), lost=False) for name in sorted(names)}
                for cluster in self.world.clusters.values():
                    cluster.is_up, cluster.room = True, 100
                self.read_file(who)
                self.tasks.pop()[1].run()
            for replica in self.replicas:
                assert replica.homes.names == self.file.keys()
                for sandbox_id in self.world.returned:
                    found = Task("get", replica.get(sandbox_id)).run()
                    assert found.error is None
        finally:
            for _, task in self.tasks:
                task.kill()


Fleet.TestCase.settings = settings(stateful_step_count=60, max_examples=5 * settings().max_examples)
TestFleet = Fleet.TestCase
