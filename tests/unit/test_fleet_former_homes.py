"""Homes that come back after the names have changed without them, and whose markers name a cluster that is still away.

The home of the sandbox is c, it is on b, and a is the only cluster that goes on.
"""

from __future__ import annotations

import pytest

from sandboxes.fleet.directory import Located
from sandboxes.fleet.protocol import ClusterAway, Member, Wanted
from tests.unit.fleet_world import Replica, Sandbox, Task, World

ID = "s4"


@pytest.fixture
def world() -> World:
    world = World()
    world.add("a", "b", "c")
    return world


def read(replica: Replica, names: str, *, lost: str = "") -> None:
    members = [Member(name, lost=name in lost) for name in names]
    assert Task("file", replica.read_file(members)).run().error is None


def get(replica: Replica) -> object:
    task = Task("get", replica.get(ID)).run()
    return task.error or task.result


def create(replica: Replica, wanted: Wanted | None = None) -> object:
    task = Task("create", replica.create(ID, wanted or Wanted())).run()
    return task.error or task.result


def place(world: World) -> tuple[Replica, object]:
    """Make the sandbox; return a replica, and where it is."""
    replica = Replica(world)
    read(replica, "abc")
    made = create(replica, Wanted("b"))
    assert made == Located("elsewhere", "b", world.clusters["b"].sandboxes[ID].uid)
    return replica, made


def lose_both(world: World, replica: Replica) -> None:
    for name in "bc":
        world.clusters[name].is_up = False
    read(replica, "abc", lost="bc")
    world.clusters["c"].is_up = True


def test_a_home_that_is_back_before_the_sandboxs_cluster_does_not_prove_it_absent(world: World) -> None:
    replica, made = place(world)
    lose_both(world, replica)
    read(replica, "abc", lost="b")
    for told in (get(replica), create(replica), Task("d", replica.delete(ID)).run().error):
        assert isinstance(told, ClusterAway)
        assert told.cluster == "b"
    world.clusters["b"].is_up = True
    read(replica, "abc")
    assert get(replica) == create(replica) == made


def test_the_same_after_starts_with_files_that_lack_them(world: World) -> None:
    _, made = place(world)
    read(Replica(world), "a")
    replica = Replica(world)
    read(replica, "ac")
    for told in (get(replica), create(replica)):
        assert isinstance(told, ClusterAway)
        assert told.cluster == "b"
    replica = Replica(world)
    read(replica, "abc")
    assert get(replica) == create(replica) == made


def test_a_pod_that_was_left_beside_the_marker_does_not_become_the_sandbox(world: World) -> None:
    replica, made = place(world)
    world.clusters["c"].sandboxes[ID] = Sandbox("left")
    lose_both(world, replica)
    world.clusters["b"].is_up = True
    read(replica, "abc")
    assert get(replica) == made


def test_a_sandbox_that_was_made_anew_meanwhile_counts(world: World) -> None:
    replica, _ = place(world)
    lose_both(world, replica)
    world.returned.clear()  # the caller gives up the one on b, which no process knows
    anew = create(replica, Wanted(recreate=True))
    assert isinstance(anew, Located)
    assert anew.cluster == "a"
    world.clusters["b"].is_up = True
    read(replica, "abc")
    found = get(replica)
    assert isinstance(found, Located)
    assert (found.cluster, found.uid) == (anew.cluster, anew.uid)


def test_a_marker_of_a_sandbox_that_was_deleted_meanwhile_makes_no_503(world: World) -> None:
    replica, _ = place(world)
    world.clusters["c"].is_up = False
    read(replica, "abc", lost="c")
    assert Task("delete", replica.delete(ID)).run().result is True
    world.clusters["c"].is_up = True
    read(replica, "abc")
    assert get(replica) == Located("nowhere", "c")
    assert isinstance(create(replica), Located)
