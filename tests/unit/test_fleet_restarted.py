"""A lost cluster that was taken out of the file is known to be out by each process that is started later, too."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from sandboxes.fleet.directory import Located
from sandboxes.fleet.markers import Marker, Record, build_record, parse_record
from sandboxes.fleet.protocol import ClusterAway, Member, Rehoming, Wanted
from tests.unit.fleet_world import Replica, Task, World
from tests.unit.test_fleet_taken_out import ID, NAMES, STAYS, create, get, lose, read, started

# The home of STAYS is a; it is placed elsewhere by name.
HOME = "a"


@pytest.fixture
def world() -> World:
    world = World()
    world.add(*NAMES)
    return world


def read_lost(replica: Replica, names: str, lost: str) -> None:
    """Let the replica read a file that says that several clusters are lost."""
    members = [Member(name, lost=name in lost) for name in names]
    assert Task("file", replica.read_file(members)).run().error is None


def take_out(world: World, replica: Replica, name: str) -> None:
    """Lose the cluster, and take its entry out."""
    lose(world, name)
    read(replica, NAMES, lost=name)
    read(replica, NAMES.replace(name, ""))


def restarted(world: World, names: str) -> Replica:
    replica = Replica(world)
    assert read(replica, names) is None
    return replica


def test_a_process_that_is_started_later_knows_that_a_lost_cluster_was_taken_out(world: World) -> None:
    replica = started(world)
    create(replica, STAYS, "c")
    take_out(world, replica, "c")
    world.give_up(STAYS)
    later = restarted(world, "ab")
    assert get(later, STAYS) == Located("nowhere", HOME)
    assert Task("delete", later.delete(STAYS)).run().result is False
    made = create(later, STAYS)
    assert isinstance(made, Located)
    assert (made.cluster, world.clusters[HOME].stored) == (HOME, {})


def test_a_process_that_is_started_later_removes_markers_of_what_was_taken_out(world: World) -> None:
    replica = started(world)
    create(replica, STAYS, "c")
    take_out(world, replica, "c")
    Task("round", restarted(world, "ab").round()).run()
    assert world.clusters[HOME].stored == {}


def test_a_home_that_is_away_is_told_what_was_taken_out_when_it_is_back(world: World) -> None:
    replica = started(world)
    create(replica, STAYS, "c")
    lose(world, "c")
    world.give_up(STAYS)
    read(replica, NAMES, lost="c")
    world.clusters[HOME].is_up = False
    assert read(replica, "ab") is None
    world.clusters[HOME].is_up = True
    assert isinstance(get(restarted(world, "ab"), STAYS), ClusterAway)
    assert read(replica, "ab") is None  # as the keeper does when a cluster is back
    assert get(restarted(world, "ab"), STAYS) == Located("nowhere", HOME)


def test_a_home_that_joins_later_knows_what_was_taken_out(world: World) -> None:
    replica = started(world)
    take_out(world, replica, "c")
    world.add("d", "e")
    assert read(replica, "abde") is None
    assert all(one.names and one.names.taken_out == {"c"} for name, one in world.clusters.items() if name != "c")


def test_a_cluster_that_is_back_in_the_file_is_asked_again(world: World) -> None:
    replica = started(world)
    create(replica, STAYS, "c")
    take_out(world, replica, "c")
    world.clusters["c"].is_up = True
    back = restarted(world, NAMES)
    assert all(one.names and not one.names.taken_out for one in world.clusters.values())
    found = get(back, STAYS)
    assert isinstance(found, Located)
    assert found.cluster == "c"
    # Nor does the process that has taken it out take it for gone, or a later one without it.
    assert isinstance(get(replica, STAYS), ClusterAway)
    assert isinstance(get(restarted(world, "ab"), STAYS), ClusterAway)


def test_other_ids_are_made_while_a_cluster_that_was_taken_out_joins_again(world: World) -> None:
    take_out(world, started(world), "c")
    back = Replica(world)
    assert isinstance(read(back, NAMES), ClusterAway)
    assert isinstance(create(back, ID), ClusterAway | Rehoming)
    assert isinstance(create(back, STAYS), Located)


def test_a_record_that_calls_a_listed_cluster_taken_out_is_put_right(world: World) -> None:
    started(world)
    for one in world.clusters.values():
        assert one.names is not None
        one.names = replace(one.names, taken_out=frozenset("c"))
    assert isinstance(create(restarted(world, NAMES), STAYS), Located)


def test_no_sandbox_is_made_by_a_file_that_lists_what_was_taken_out(world: World) -> None:
    replica, older = started(world), started(world)
    take_out(world, replica, "c")
    # The other replica has not read the new file, and could place a sandbox on c.
    assert isinstance(create(older, STAYS, "c"), Rehoming)


def test_what_a_lost_successor_was_to_replace_is_what_is_left(world: World) -> None:
    replica = started(world)
    create(replica, STAYS, "b")
    lose(world, "b")
    read(replica, NAMES, lost="b")
    world.clusters["c"].room = 0
    task = Task("create", replica.create(STAYS, Wanted("c", recreate=True))).run()
    assert task.error is not None
    assert world.clusters[HOME].stored[STAYS].replaces.startswith("b/")
    lose(world, "c")
    read_lost(replica, NAMES, "bc")
    read_lost(replica, "ab", "b")
    # Read anew, so that only the record says it; then the first cluster comes back.
    later = Replica(world)
    assert read(later, "ab", lost="b") is None
    assert isinstance(get(later, STAYS), ClusterAway)
    world.clusters["b"].is_up = True
    assert read(later, "ab") is None
    found = get(later, STAYS)
    assert isinstance(found, Located)
    assert (found.cluster, found.uid) == ("b", world.clusters["b"].sandboxes[STAYS].uid)


def test_a_marker_that_names_an_unknown_cluster_is_named_to_callers(world: World) -> None:
    replica = restarted(world, "ab")
    world.clusters[HOME].stored[STAYS] = Marker(STAYS, "z", "placed", "token", version="0")
    said = (
        "Cluster 'z' is not in the list of clusters, and only it knows where this sandbox is, "
        f"by ConfigMap 'sandbox-{STAYS}-elsewhere' in cluster 'a'"
    )
    for error in (get(replica, STAYS), create(replica, STAYS), Task("delete", replica.delete(STAYS)).run().error):
        assert str(error) == said


def test_a_marker_that_names_an_unknown_cluster_is_named_in_the_log_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    replica = restarted(world, "ab")
    world.clusters[HOME].stored[STAYS] = Marker(STAYS, "z", "placed", "token", version="0")
    for _ in range(3):
        Task("round", replica.round()).run()
    (warned,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert f"'sandbox-{STAYS}-elsewhere' in cluster 'a'" in warned


def test_an_unknown_cluster_is_forgotten_by_an_entry_that_says_it_is_lost(world: World) -> None:
    replica = restarted(world, "ab")
    world.clusters[HOME].stored[STAYS] = Marker(STAYS, "z", "placed", "token", version="0")
    world.add("z")
    lose(world, "z")
    read(replica, "abz", lost="z")
    read(replica, "ab")
    assert get(replica, STAYS) == Located("nowhere", HOME)
    assert isinstance(create(replica, ID), Located)


def test_the_record_keeps_what_was_taken_out() -> None:
    record = Record(frozenset("ab"), epoch=3, taken_out=frozenset("c"))
    assert parse_record(build_record(record, "n")) == record
    assert "taken_out" not in build_record(replace(record, taken_out=frozenset()), "n")["data"]
