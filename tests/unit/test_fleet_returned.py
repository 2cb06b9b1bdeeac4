"""Two creates that apply one Pod in the same instant: each holds it for its own, and one of them is returned."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandboxes.fleet.protocol import Member, Wanted
from tests.unit.fleet_world import Broken, MemoryCluster, Replica, Task, World
from tests.unit.test_fleet_interleavings import HOME, ID, NAMES


def step(task: Task, times: int) -> None:
    for _ in range(times):
        task.step()


def looked(replica: Replica) -> Task:
    """Begin a create at home that has found neither Pod nor marker, and is about to apply its Pod."""
    task = Task("create", replica.create(ID, Wanted(HOME)))
    step(task, 4)  # the Pod, the marker, the record; the Pod again
    return task


def returned_before_the_other_applies(one: Task, two: Task) -> None:
    one.run()
    two.step()


def returned_after_the_other_has_applied(one: Task, two: Task) -> None:
    one.step()
    two.step()
    one.run()


SCHEDULES = [returned_before_the_other_applies, returned_after_the_other_has_applied]
Schedule = Callable[[Task, Task], None]


def play(schedule: Schedule) -> World:
    """Let the home give no answer to the second create after its apply: it deletes what it has made. Raises Broken."""
    world = World()
    world.add(*NAMES)
    replicas = [Replica(world), Replica(world)]
    for replica in replicas:
        Task("file", replica.read_file([Member(name) for name in NAMES])).run()
    for replica in replicas:
        Task("get", replica.get(ID)).run()  # from now on it knows the record of the home
    one, two = map(looked, replicas)
    schedule(one, two)
    assert one.error is None
    two.step()
    two.step("refused")
    assert two.run().error is not None
    world.check(ID)
    return world


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_pod_that_was_returned_is_not_withdrawn_by_another_create_of_the_same_instant(schedule: Schedule) -> None:
    assert ID in play(schedule).clusters[HOME].sandboxes


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_pod_that_is_returned_without_a_mark_is_withdrawn(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def only_say_so(*_: object, is_new: bool) -> bool:  # noqa: ARG001 - as the original
        return True

    monkeypatch.setattr(MemoryCluster, "confirm_pod", only_say_so)
    with pytest.raises(Broken, match="falsely deleted"):
        play(schedule)
