"""The rounds of a replica that nobody calls: live views are believed about records and Pods, and prove nothing.

Each view shows a state that its cluster has had, as old as the test likes, and counts as fresh.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any

import pytest

from sandboxes.fleet.directory import Directory
from sandboxes.fleet.homes import Homes
from sandboxes.fleet.markers import Record
from sandboxes.fleet.names import NameChange
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import Member, Wanted
from tests.unit.fleet_world import Fate, MemoryCluster, Replica, Task, World
from tests.unit.test_fleet_names import Joining, Leaving, Scenario
from tests.unit.test_fleet_views import Past, View, WorldWithPast

SEEDS = 80
NAMES = ("a", "b", "c")


class Behind(View):
    """A view that is nearer to the present, or not, each time it is asked."""

    chance = random.Random(0)  # noqa: S311 - no secret

    def still_has(self, record: Record) -> bool:
        self.follow(self.chance)
        return super().still_has(record)


class Idle(Replica):
    """A replica whose rounds go by views that are behind."""

    def __init__(
        self,
        world: World,
        directory: type[Directory] = Directory,
        placement: type[Placement] = Placement,
        homes: type[Homes] = Homes,
        change: type[NameChange] = NameChange,
    ) -> None:
        super().__init__(world, directory, placement, homes, change)
        assert isinstance(world, WorldWithPast)
        self.views = {
            name: Behind(one.seat(), world.past.setdefault(name, Past())) for name, one in world.clusters.items()
        }

    def connect(self, name: str) -> Any:
        return self.views[name]

    async def round(self) -> None:
        for view in self.views.values():
            view.follow(view.chance)
        await super().round()


def with_views(scenario: type[Scenario]) -> type[Scenario]:
    return type(f"{scenario.__name__}WithViews", (scenario,), {"world_type": WorldWithPast, "replica_type": Idle})


@pytest.mark.parametrize("scenario", [Scenario, Joining, Leaving])
def test_no_change_of_names_breaks_a_promise_where_views_of_the_records_are_behind(scenario: type[Scenario]) -> None:
    for seed in range(SEEDS):
        with_views(scenario)(seed, Homes, NameChange).run()


class Counted(MemoryCluster):
    """Counts the calls, and shows what the test says."""

    calls = 0

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.shown: Record | None = None

    def seat(self) -> MemoryCluster:
        return self

    async def call(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return await super().call(*args, **options)

    def still_has(self, record: Record) -> bool:
        return self.shown == record


class Rounds:
    """One replica of three clusters, whose directory is complete, and whose views show that."""

    def __init__(self) -> None:
        self.world = World()
        self.clusters = {name: Counted(self.world, name) for name in NAMES}
        self.world.clusters |= self.clusters
        self.replica = Replica(self.world)
        self.file = [Member(name) for name in NAMES]
        for _ in range(2):  # the change, and a round that finds it complete
            self.look()
        self.show()

    def show(self) -> None:
        """Let all views be up to date."""
        for one in self.clusters.values():
            one.shown = one.names

    def look(self) -> dict[str, int]:
        """Look at the file, and change the names if they do not agree; return the calls of each cluster, if any."""
        return self._counted(self.replica.read_file(self.file))

    def adopt(self) -> dict[str, int]:
        """Look at the file; return the calls of each cluster, if any."""
        return self._counted(self.replica.directory.adopt(self.file))

    def _counted(self, work: Coroutine[Any, Fate, object]) -> dict[str, int]:
        before = {name: one.calls for name, one in self.clusters.items()}
        task = Task("file", work).run()
        assert task.error is None
        return {name: made for name, one in self.clusters.items() if (made := one.calls - before[name])}

    def change(self, name: str) -> None:
        """Let another replica announce a list in the record of one cluster."""
        one = self.clusters[name]
        assert one.names is not None
        coming = (frozenset({"a", "b"}),)
        one.names = Record(one.names.names, coming, one.names.epoch, version=self.world.number())


ALL = dict.fromkeys(NAMES, 1)


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


def test_a_look_at_the_same_file_asks_no_cluster_whose_view_shows_the_agreed_record(rounds: Rounds) -> None:
    for _ in range(5):
        assert rounds.look() == {}
    assert rounds.replica.homes.doubtful == frozenset()


def test_a_cluster_whose_view_is_not_fresh_is_the_only_one_that_is_asked(rounds: Rounds) -> None:
    rounds.clusters["b"].shown = None
    assert rounds.look() == {"b": 1}


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_record_that_another_replica_has_changed_is_taken_with_all_others(rounds: Rounds, is_shown: bool) -> None:
    rounds.change("b")
    rounds.clusters["b"].shown = rounds.clusters["b"].names if is_shown else None
    # What was asked for this look is asked again with all others.
    assert rounds.adopt() == ALL | {"b": 2}
    assert frozenset({"a", "b"}) in rounds.replica.homes.doubtful


def test_a_change_of_the_file_asks_every_cluster(rounds: Rounds) -> None:
    rounds.file = [Member("a"), Member("b"), Member("c", lost=True)]
    assert rounds.adopt() == {"a": 1, "b": 1}


def test_a_cluster_that_is_connected_anew_is_asked(rounds: Rounds) -> None:
    anew = Counted(rounds.world, "b")
    anew.names = anew.shown = rounds.clusters["b"].names
    rounds.clusters["b"] = rounds.world.clusters["b"] = rounds.replica.clusters["b"] = anew
    assert rounds.look() == {"b": 1}


def test_no_view_is_believed_before_all_records_agree(rounds: Rounds) -> None:
    rounds.change("b")
    rounds.show()
    rounds.adopt()
    assert rounds.adopt() == ALL


def test_no_view_is_believed_that_is_older_than_a_record_which_a_request_has_seen(rounds: Rounds) -> None:
    newest = rounds.replica.homes.newest
    rounds.replica.homes.note(Record(newest.names, (), newest.epoch + 1, version="later"))
    assert rounds.adopt() == ALL


def test_a_cluster_that_gave_no_answer_is_asked_again_and_no_other(rounds: Rounds) -> None:
    rounds.clusters["b"].is_up, rounds.clusters["b"].shown = False, None
    for _ in range(3):
        assert rounds.look() == {"b": 1}
    rounds.clusters["b"].is_up = True
    assert rounds.look()["b"] >= 1


@pytest.mark.parametrize("views_are_fresh", [True, False])
def test_a_replaced_pod_is_deleted_by_its_uid_whatever_the_views_show(views_are_fresh: bool) -> None:
    world = WorldWithPast()
    world.add(*NAMES)
    replica = Idle(world)
    Task("file", replica.read_file([Member(name) for name in NAMES])).run()
    made = Task("create", replica.create("x", Wanted("a"))).run()
    assert made.error is None
    world.ever_lost.add("a")
    world.clusters["a"].is_up = False
    Task("file", replica.read_file([Member("a", lost=True), Member("b"), Member("c")])).run()
    Task("create", replica.create("x", Wanted("b", recreate=True))).run()
    world.clusters["a"].is_up = True
    Task("file", replica.read_file([Member(name) for name in NAMES])).run()
    world.check("x")
    assert set(world.alive("x")) == {"a", "b"}
    for view in replica.views.values():
        view.lag(0)
        if not views_are_fresh:
            view.seen_pods = lambda **_: None  # type: ignore[method-assign]
    Task("round", Replica.round(replica)).run()
    assert set(world.alive("x")) == {"b"}
