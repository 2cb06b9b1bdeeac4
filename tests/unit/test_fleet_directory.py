"""The answers of a directory of three clusters, one case at a time."""

from __future__ import annotations

import pytest

from sandboxes.errors import ProvisionerError
from sandboxes.fleet.directory import Located
from sandboxes.fleet.protocol import ClusterAway, Member, Wanted
from tests.unit.fleet_world import Replica, Task, World

# Its home is c; by a and b it is a.
ID = "s4"


@pytest.fixture
def world() -> World:
    world = World()
    world.add("a", "b", "c")
    return world


@pytest.fixture
def replica(world: World) -> Replica:
    replica = Replica(world)
    read(replica)
    return replica


def read(replica: Replica, *, lost: str = "") -> None:
    members = [Member(name, lost=name == lost) for name in "abc"]
    assert Task("file", replica.read_file(members)).run().error is None


def create(replica: Replica, cluster: str | None = None, *, recreate: bool = False) -> Located | ProvisionerError:
    task = Task("create", replica.create(ID, Wanted(cluster, recreate=recreate))).run()
    assert isinstance(task.result, Located) or task.error is not None
    return task.result if isinstance(task.result, Located) else task.error  # type: ignore[return-value]


def create_and_wait(replica: Replica, cluster: str | None = None) -> object:
    task = Task("create", replica.create(ID, Wanted(cluster), waits=True)).run()
    return task.result or task.error


def get(replica: Replica) -> object:
    task = Task("get", replica.get(ID)).run()
    return task.error or task.result


def test_a_sandbox_at_home_needs_no_marker(world: World, replica: Replica) -> None:
    assert create(replica) == get(replica) == Located("there", "c", world.clusters["c"].sandboxes[ID].uid)
    assert not any(cluster.stored for cluster in world.clusters.values())


def test_a_sandbox_elsewhere_is_found_by_its_marker(world: World, replica: Replica) -> None:
    assert create(replica, "b") == get(replica) == Located("elsewhere", "b", world.clusters["b"].sandboxes[ID].uid)
    assert world.clusters["c"].stored[ID].cluster == "b"


def test_an_unreachable_home_is_named_and_proves_nothing(world: World, replica: Replica) -> None:
    create(replica, "b")
    world.clusters["c"].is_up = False
    for answer in (get(replica), create(replica), create(replica, "a"), Task("d", replica.delete(ID)).run().error):
        assert isinstance(answer, ClusterAway)
        assert (answer.status, answer.cluster) == (503, "c")


def test_a_full_cluster_is_followed_by_the_next_in_order(world: World, replica: Replica) -> None:
    world.clusters["c"].room = 0
    answer = create(replica)
    assert isinstance(answer, Located)
    assert answer.kind == "elsewhere"
    assert get(replica) == answer


def test_a_marker_goes_once_its_sandbox_is_gone(world: World, replica: Replica) -> None:
    create(replica, "b")
    Task("round", replica.round()).run()
    assert world.clusters["c"].stored
    assert Task("delete", replica.delete(ID)).run().result is True
    Task("round", replica.round()).run()
    assert not world.clusters["c"].stored


def test_a_sandbox_of_a_lost_cluster_is_made_anew_only_on_request(world: World, replica: Replica) -> None:
    create(replica, "b")
    old = world.clusters["b"].sandboxes[ID].uid
    world.clusters["b"].is_up = False
    read(replica, lost="b")
    assert isinstance(create(replica), ClusterAway)
    assert isinstance(get(replica), ClusterAway)
    new = create(replica, recreate=True)
    assert isinstance(new, Located)
    assert new == get(replica)
    assert world.clusters[new.cluster].sandboxes[ID].replaces == f"b/{old}"
    world.clusters["b"].is_up = True
    read(replica)
    Task("round", replica.round()).run()
    assert ID not in world.clusters["b"].sandboxes
    assert get(replica) == new


@pytest.mark.parametrize("reads", [1, 2, 3, 4])
def test_a_change_of_names_that_completes_within_a_read_makes_no_sandbox_absent(reads: int) -> None:
    world = World()
    world.add("a", "b", "c")
    before, after = ([Member(name) for name in names] for names in ("ab", "abc"))
    one, two = Replica(world), Replica(world)
    for replica in (one, two):
        assert Task("file", replica.read_file(before)).run().error is None
    made = create(one)
    assert made == Located("there", "a", world.clusters["a"].sandboxes[ID].uid)
    change = Task("file", one.read_file(after))
    while world.clusters["c"].names is None:
        change.step()
    two.clusters["c"] = world.clusters["c"]
    two.homes.read(after)
    reading = Task("get", two.get(ID))
    for _ in range(reads):
        reading.step()
    change.run()
    assert isinstance(made, Located)
    assert reading.run().result == Located("elsewhere", "a", made.uid)


def test_a_sandbox_that_finds_no_node_is_made_on_the_next_cluster(world: World, replica: Replica) -> None:
    world.clusters["c"].cramped = True
    told = create_and_wait(replica)
    assert isinstance(told, Located)
    assert told.kind == "elsewhere"
    assert get(replica) == told
    assert set(world.alive(ID)) == {told.cluster}
    assert world.clusters["c"].stored[ID].cluster == told.cluster


@pytest.mark.parametrize("waits", [True, False])
def test_without_another_cluster_or_a_wait_it_stays_where_it_finds_no_node(
    world: World, replica: Replica, *, waits: bool
) -> None:
    world.clusters["c"].cramped = True
    told = create_and_wait(replica, "c") if waits else create(replica)
    assert told == get(replica) == Located("there", "c", world.clusters["c"].sandboxes[ID].uid)
    assert world.gone == {}


def test_a_sandbox_that_finds_no_node_anywhere_stays_on_the_last_cluster(world: World, replica: Replica) -> None:
    for cluster in world.clusters.values():
        cluster.cramped = True
    told = create_and_wait(replica)
    assert isinstance(told, Located)
    assert set(world.alive(ID)) == {told.cluster}
    assert get(replica) == told
    assert set(world.gone.values()) == {"withdrawn"}
    assert len(world.gone) == 2


def test_a_sandbox_without_a_node_goes_back_if_all_others_are_full(world: World, replica: Replica) -> None:
    world.clusters["c"].cramped = True
    for name in "ab":
        world.clusters[name].room = 0
    told = create_and_wait(replica)
    assert told == get(replica) == Located("there", "c", world.clusters["c"].sandboxes[ID].uid)
    assert not world.clusters["c"].stored


def test_a_create_that_found_the_pod_never_moves_it(world: World, replica: Replica) -> None:
    first = create(replica)
    world.clusters["c"].cramped = True
    assert create_and_wait(replica) == create_and_wait(replica) == first
    assert world.gone == {}


def test_a_pod_without_a_node_that_another_create_has_returned_is_not_moved(world: World, replica: Replica) -> None:
    world.clusters["c"].cramped = True
    first = Task("create", replica.create(ID, Wanted(), waits=True))
    while not world.clusters["c"].sandboxes:
        first.step()
    second = create(replica)
    assert first.run().result == second == get(replica)
    assert world.gone == {}
