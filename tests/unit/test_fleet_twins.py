"""Two entries of the file that are one cluster and namespace: noticed by the record, and put right by the operator."""

from __future__ import annotations

import pytest

from sandboxes.fleet.directory import Located
from sandboxes.fleet.markers import Marker, Record
from sandboxes.fleet.protocol import ClusterAway, Member, Wanted
from sandboxes.fleet.rendezvous import home
from sandboxes.fleet.twins import OneCluster, find_twins, problem_of
from tests.unit.fleet_world import Replica, Sandbox, Task, World
from tests.unit.test_fleet_taken_out import create, get, read

NAMES = ("a", "b", "c")
# An id whose home is this cluster.
OF_A, OF_B, OF_C = (next(one for one in map(str, range(100)) if home(one, NAMES) == name) for name in NAMES)
# The same, of sandboxes that are on c.
ON_C = tuple(next(one for one in map(str, range(100, 200)) if home(one, NAMES) == name) for name in "ab")


class WorldWithTwins(World):
    """The names a and b are one cluster."""

    def alive(self, sandbox_id: str) -> dict[str, Sandbox]:
        return {name: one for name, one in super().alive(sandbox_id).items() if name != "b"}


@pytest.fixture
def world() -> World:
    world = WorldWithTwins()
    world.add("a", "c")
    world.clusters["b"] = world.clusters["a"]
    return world


@pytest.fixture
def replica(world: World) -> Replica:
    """Return a replica of a version that did not notice it: the list is complete, and sandboxes were made."""
    for name in ("a", "c"):
        world.clusters[name].names = Record(frozenset(NAMES), epoch=1, version="0", uid=f"record-of-{name}")
    return Replica(world)


def test_no_sandbox_is_made_while_a_new_list_names_a_cluster_twice(world: World) -> None:
    replica = Replica(world)
    for _ in range(2):
        error = read(replica, "abc")
        assert isinstance(error, OneCluster)
        assert str(error) == "Clusters 'a' and 'b' of the list are one cluster and namespace"
    for sandbox_id in (OF_A, OF_B, OF_C):
        assert isinstance(create(replica, sandbox_id), OneCluster)
    assert not any(one.sandboxes or one.stored for one in world.clusters.values())
    assert read(replica, "ac") is None
    assert isinstance(create(replica, OF_A), Located)


def test_a_cluster_that_joins_under_a_second_name_is_noticed_and_can_go_again(world: World) -> None:
    replica = Replica(world)
    assert read(replica, "ac") is None
    create(replica, OF_A)
    assert isinstance(read(replica, "abc"), OneCluster)
    assert replica.homes.twins() == {"b": "a"}
    assert isinstance(get(replica, OF_A), Located)
    assert read(replica, "abc", lost="b") is None
    assert read(replica, "ac") is None
    assert isinstance(get(replica, OF_A), Located)
    assert isinstance(create(replica, OF_B), Located)


def test_the_later_name_gets_no_new_sandbox_and_what_is_there_goes_on(world: World, replica: Replica) -> None:
    assert read(replica, "abc") is None
    assert replica.homes.twins() == {"b": "a"}
    world.clusters["a"].sandboxes[OF_B] = Sandbox("u")
    for operation in (create, get):
        assert operation(replica, OF_B) == Located("there", "b", "u")
    assert Task("delete", replica.delete(OF_B)).run().result is True
    assert isinstance(create(replica, OF_B), OneCluster)
    assert isinstance(create(replica, OF_C, "b"), OneCluster)
    assert not world.clusters["a"].sandboxes
    assert not world.clusters["c"].stored
    assert isinstance(create(replica, OF_A), Located)


def put_on_c(world: World) -> None:
    for sandbox_id in ON_C:
        world.clusters["c"].sandboxes[sandbox_id] = Sandbox(f"uid-{sandbox_id}")
        marker = Marker(sandbox_id, "c", "placed", "token", f"uid-{sandbox_id}", version=f"version-{sandbox_id}")
        world.clusters["a"].stored[sandbox_id] = marker


def test_the_markers_of_one_name_are_not_tidied_away_by_the_other(world: World, replica: Replica) -> None:
    put_on_c(world)
    assert read(replica, "abc") is None
    for _ in range(2):
        Task("round", replica.round()).run()
    for sandbox_id in ON_C:
        assert get(replica, sandbox_id) == Located("elsewhere", "c", f"uid-{sandbox_id}")


def test_what_is_on_a_lost_cluster_is_known_after_one_of_both_names_was_taken_out(
    world: World, replica: Replica
) -> None:
    world.add("d")
    for one in world.clusters.values():
        one.names = Record(frozenset("abcd"), epoch=1, version="0", uid=f"record-of-{one.name}")
    ids = [next(one for one in map(str, range(100)) if home(one, "abcd") == name) for name in "ab"]
    for sandbox_id in ids:
        world.clusters["a"].stored[sandbox_id] = Marker(sandbox_id, "d", "placed", "token", "u", version=sandbox_id)
    world.clusters["d"].is_up = False
    for names, lost in (("abcd", "bd"), ("acd", "d")):
        members = [Member(name, lost=name in lost) for name in names]
        assert Task("file", replica.read_file(members)).run().error is None
    for sandbox_id in ids:
        error = get(replica, sandbox_id)
        assert isinstance(error, ClusterAway)
        assert error.cluster == "d"


@pytest.mark.parametrize("lost", ["a", "b"])
def test_nothing_is_lost_when_one_of_both_names_is_taken_out(world: World, replica: Replica, lost: str) -> None:
    for sandbox_id in (OF_A, OF_B, OF_C):
        world.clusters["a"].sandboxes[sandbox_id] = Sandbox(f"uid-{sandbox_id}")
    world.clusters["c"].stored[OF_C] = Marker(OF_C, lost, "placed", "token", f"uid-{OF_C}", version="0")
    put_on_c(world)
    assert read(replica, "abc") is None
    left = "abc".replace(lost, "")
    assert read(replica, "abc", lost=lost) is None
    assert read(replica, left) is None
    for one in (replica, Replica(world)):
        assert read(one, left) is None
        for sandbox_id in (OF_A, OF_B, OF_C):
            found = get(one, sandbox_id)
            assert isinstance(found, Located)
            assert (found.cluster, found.uid) == (left[0], f"uid-{sandbox_id}")
            assert create(one, sandbox_id) == found
        for sandbox_id in ON_C:
            assert get(one, sandbox_id) == Located("elsewhere", "c", f"uid-{sandbox_id}")


def test_a_start_with_one_of_both_names_lost_is_put_right_as_well(world: World, replica: Replica) -> None:
    world.clusters["a"].sandboxes[OF_B] = Sandbox("u")
    assert read(replica, "abc", lost="b") is None
    assert read(replica, "ac") is None
    found = get(replica, OF_B)
    assert isinstance(found, Located)
    assert found.uid == "u"


@pytest.mark.parametrize("there", [{}, {OF_C: Sandbox("another-uid")}])
def test_a_sandbox_on_a_lost_name_is_not_taken_for_gone_if_the_other_lacks_it(
    world: World, replica: Replica, there: dict[str, Sandbox]
) -> None:
    world.clusters["a"].sandboxes.update(there)
    world.clusters["c"].stored[OF_C] = Marker(OF_C, "b", "placed", "token", "u", version="0")
    assert read(replica, "abc", lost="b") is None
    assert isinstance(get(replica, OF_C), ClusterAway)
    assert isinstance(Task("create", replica.create(OF_C, Wanted())).run().error, ClusterAway)


def test_names_are_one_cluster_only_if_both_uids_are_known() -> None:
    assert find_twins("abcd", {"a": "", "b": "", "c": "u", "d": "v"}) == {}
    assert find_twins("dcba", {"a": "u", "b": "v", "c": "u", "d": "v"}) == {"b": "d", "a": "c"}
    assert problem_of("c", {"a": "c"}) is None
    assert "'c'" in str(problem_of("a", {"a": "c"}))
