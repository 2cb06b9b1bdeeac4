"""What a directory can't know of lost clusters, since whoever could tell was lost or taken out with them."""

from __future__ import annotations

import pytest

from sandboxes.fleet.directory import Located
from sandboxes.fleet.protocol import ClusterAway, Wanted
from tests.unit.fleet_world import Replica, Task, World
from tests.unit.test_fleet_taken_out import ID, NAMES, create, get, lose, read, started

# Its home is b by a and b, and c by all three.
MOVES = "s13"


@pytest.fixture
def world() -> World:
    world = World()
    world.add(*NAMES)
    return world


def recreate(replica: Replica, sandbox_id: str) -> object:
    task = Task("create", replica.create(sandbox_id, Wanted(recreate=True))).run()
    return task.error or task.result


def test_a_sandbox_of_a_lost_home_is_not_made_anew_while_a_cluster_is_unlisted(world: World) -> None:
    assert isinstance(create(started(world), ID, "a"), Located)
    # Only its home knows that it is on a.
    lose(world, "c")
    later = Replica(world)
    assert read(later, "bc", lost="c") is None
    refused = recreate(later, ID)
    assert isinstance(refused, ClusterAway)
    assert refused.cluster == "a"


def test_a_sandbox_may_be_on_a_lost_cluster_if_no_record_says_where_its_home_was(world: World) -> None:
    assert read(Replica(world), "ab") is None
    replica = Replica(world)
    assert read(replica, "a") is None
    assert isinstance(create(replica, ID), Located)
    lose(world, "a")
    later = Replica(world)
    assert read(later, "ac", lost="a") is None
    assert isinstance(get(later, ID), ClusterAway)
    assert isinstance(create(later, ID), ClusterAway)
    assert isinstance(recreate(later, ID), Located)


def test_a_sandbox_that_replaced_one_does_not_wait_for_it_when_its_cluster_was_taken_out(world: World) -> None:
    replica = Replica(world)
    assert read(replica, "ab") is None
    lose(world, "b")
    assert read(replica, "ab", lost="b") is None
    assert isinstance(recreate(replica, MOVES), Located)
    # Its home becomes c, which gets its marker.
    assert read(replica, "ac") is None
    assert MOVES in world.clusters["c"].stored
    assert Task("delete", replica.delete(MOVES)).run().result is True
    assert get(replica, MOVES) == Located("nowhere", "c")


def test_a_cluster_that_left_while_another_was_lost_is_not_asked_when_that_is_back(world: World) -> None:
    replica = started(world)
    lose(world, "b")
    assert read(replica, NAMES, lost="b") is None
    assert read(replica, "bc", lost="b") is None
    world.clusters["b"].is_up = True
    # Its record still names a.
    assert read(replica, "bc") is None
    assert isinstance(create(replica, ID), Located)
    assert read(Replica(world), "bc") is None
