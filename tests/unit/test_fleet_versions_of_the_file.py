"""Versions of the file that follow each other faster than the directory takes them."""

from __future__ import annotations

from sandboxes.fleet.protocol import Member
from tests.unit.fleet_world import Replica, Task, World

EAST, WEST, NORTH = (Member(name) for name in ("a", "b", "c"))
LOST = Member("c", lost=True)


def take(replica: Replica, *members: Member) -> Task:
    return Task("file", replica.read_file(list(members))).run()


def start() -> Replica:
    world = World()
    world.add("a", "b", "c")
    replica = Replica(world)
    assert take(replica, EAST, WEST, NORTH).error is None
    world.clusters["c"].is_up = False
    return replica


def test_a_lost_cluster_is_taken_out_though_the_version_that_calls_it_lost_was_never_read() -> None:
    replica = start()
    replica.homes.note_file([EAST, WEST, LOST])
    replica.homes.note_file([EAST, WEST])
    assert take(replica, EAST, WEST).error is None
    assert replica.homes.newest.names == {"a", "b"}


def test_a_cluster_that_is_back_in_the_file_is_not_taken_out_as_lost() -> None:
    replica = start()
    replica.homes.note_file([EAST, WEST, LOST])
    replica.homes.note_file([EAST, WEST, NORTH])
    replica.homes.note_file([EAST, WEST])
    assert take(replica, EAST, WEST).error is not None
