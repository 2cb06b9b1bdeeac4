"""A lost cluster is taken out of the file: what it had is nowhere, and the change of names does not wait for it."""

from __future__ import annotations

import pytest

from sandboxes.errors import ProvisionerError
from sandboxes.fleet.directory import Located
from sandboxes.fleet.protocol import ClusterAway, Member, Rehoming, Wanted
from tests.unit.fleet_world import Replica, Task, World

NAMES = "abc"
# Its home is c, and by a and b it is a.
ID = "s4"
# Its home is a, by a and b, too.
STAYS = "s0"


@pytest.fixture
def world() -> World:
    world = World()
    world.add(*NAMES)
    return world


@pytest.fixture
def replica(world: World) -> Replica:
    return started(world)


def started(world: World) -> Replica:
    replica = Replica(world)
    assert read(replica, NAMES) is None
    return replica


def read(replica: Replica, names: str, *, lost: str = "") -> ProvisionerError | None:
    """Let the replica read a file with these clusters; return why the change of names could not be completed."""
    members = [Member(name, lost=name == lost) for name in names]
    return Task("file", replica.read_file(members)).run().error


def lose(world: World, name: str) -> None:
    world.clusters[name].is_up = False
    world.ever_lost.add(name)


def get(replica: Replica, sandbox_id: str) -> object:
    task = Task("get", replica.get(sandbox_id)).run()
    return task.error or task.result


def create(replica: Replica, sandbox_id: str, cluster: str | None = None) -> object:
    task = Task("create", replica.create(sandbox_id, Wanted(cluster))).run()
    return task.error or task.result


def test_a_marker_that_names_a_cluster_that_was_taken_out_proves_absence(world: World, replica: Replica) -> None:
    assert isinstance(create(replica, STAYS, "c"), Located)
    stale = started(world)
    lose(world, "c")
    assert read(replica, NAMES, lost="c") is None
    assert isinstance(get(replica, STAYS), ClusterAway)
    assert read(replica, "ab") is None
    world.give_up(STAYS)
    assert get(replica, STAYS) == Located("nowhere", "a")
    assert Task("delete", replica.delete(STAYS)).run().result is False
    # A replica that has not read that file, or never knew of that cluster, has no proof.
    assert isinstance(get(stale, STAYS), ClusterAway)
    assert (
        create(replica, STAYS) == get(replica, STAYS) == Located("there", "a", world.clusters["a"].sandboxes[STAYS].uid)
    )
    assert world.clusters["a"].stored == {}


def test_a_marker_that_names_a_cluster_that_was_taken_out_is_removed(world: World, replica: Replica) -> None:
    create(replica, STAYS, "c")
    lose(world, "c")
    read(replica, NAMES, lost="c")
    Task("round", replica.round()).run()
    assert STAYS in world.clusters["a"].stored
    read(replica, "ab")
    Task("round", replica.round()).run()
    assert world.clusters["a"].stored == {}


def test_a_lost_cluster_may_be_taken_out_before_the_change_of_names_is_complete(world: World, replica: Replica) -> None:
    lose(world, "c")
    world.clusters["b"].is_up = False
    assert read(replica, NAMES, lost="c") is not None
    assert isinstance(create(replica, ID), Rehoming | ClusterAway)
    world.clusters["b"].is_up = True
    assert read(replica, "ab") is None
    assert isinstance(create(replica, ID), Located)


def test_a_cluster_that_was_taken_out_and_is_listed_again_is_not_taken_for_gone(world: World, replica: Replica) -> None:
    create(replica, STAYS, "c")
    newer = started(world)
    lose(world, "c")
    read(replica, NAMES, lost="c")
    assert read(replica, "ab") is None
    world.clusters["c"].is_up = True
    # Another replica's file has the cluster again, and the change of names is complete.
    assert read(newer, NAMES) is None
    Task("another id", replica.get(ID)).run()
    assert isinstance(get(newer, STAYS), Located)
    assert isinstance(get(replica, STAYS), ClusterAway)


def test_a_cluster_that_is_about_to_leave_counts_although_a_record_calls_it_unlisted(world: World) -> None:
    first = Replica(world)
    assert read(first, "ab") is None
    assert isinstance(create(first, STAYS, "b"), Located)
    # Two starts, each without one more cluster; only a knows that the sandbox is on b.
    replica = Replica(world)
    assert read(replica, "ac") is None
    assert read(Replica(world), "c") is None
    leaves = Task("file", replica.read_file([Member("c")]))
    leaves.step()
    assert not leaves.is_over
    assert isinstance(get(replica, STAYS), ClusterAway)
    leaves.run()
    assert isinstance(get(replica, STAYS), ClusterAway)
    # Both are listed again.
    assert read(replica, NAMES) is None
    assert isinstance(get(replica, STAYS), Located)
