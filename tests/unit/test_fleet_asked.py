"""Every error about a cluster that gives no answer names the cluster, whatever it was asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from sandboxes.errors import (
    AlreadyThere,
    ClusterRefused,
    ClusterTimeout,
    ConnectionFailed,
    ObjectsChanged,
    OutOfTime,
    PreconditionFailed,
    ProvisionerError,
    ServerFailed,
    StillDeleting,
)
from sandboxes.fleet.asked import Asked
from sandboxes.fleet.markers import Marker, Record
from sandboxes.fleet.protocol import AskedCluster, ClusterAway, Member, NotReadable, Wanted
from sandboxes.fleet.rendezvous import home
from tests.unit.fleet_world import Replica, Task, World
from tests.unit.virtual_time import run

NAMES = ("a", "b")
ID = "x"
HOME = home(ID, NAMES)
(OTHER,) = set(NAMES) - {HOME}

CALLS = [name for name, _ in inspect.getmembers(AskedCluster, inspect.iscoroutinefunction)]
ARGUMENTS = {
    "sandbox_id": ID, "uid": "u", "is_new": True, "marker": Marker(ID, "a", "placed", "t"), "record": Record(),
}  # fmt: skip


class Credentials(ClusterRefused):
    refuses_all = True


class Failing:
    """A cluster whose calls all fail with this error."""

    def __init__(self, error: ProvisionerError) -> None:
        self._error = error

    def __getattr__(self, _name: str) -> Callable[..., Awaitable[Any]]:
        async def fail(*_args: object, **_options: object) -> None:
            raise self._error

        return fail


def failed(call: str, error: ProvisionerError) -> ProvisionerError:
    """Return the error of this call to a cluster `a` that fails with `error`."""
    method = getattr(Asked("a", cast("AskedCluster", Failing(error))), call)
    arguments = {one: ARGUMENTS[one] for one in inspect.signature(method).parameters if one in ARGUMENTS}
    with pytest.raises(ProvisionerError) as caught:
        run(method(**arguments))
    return caught.value


def test_the_calls_of_a_cluster_are_known() -> None:
    assert {"look", "confirm_pod", "withdraw", "delete", "put_record"} <= set(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_each_call_without_an_answer_names_the_cluster(call: str) -> None:
    for error in (ConnectionFailed("no"), ServerFailed("no"), ClusterTimeout(), NotReadable("no"), Credentials("no")):
        raised = failed(call, error)
        assert isinstance(raised, ClusterAway)
        assert (raised.cluster, raised.status) == ("a", 503)


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_of_a_cluster_stays_what_it_is(call: str) -> None:
    for error in (AlreadyThere("there"), PreconditionFailed("no"), ObjectsChanged("no"), StillDeleting(), OutOfTime()):
        assert failed(call, error) is error
    refused = ClusterRefused("no")
    assert failed(call, refused) is refused


@pytest.mark.parametrize("cluster", [HOME, OTHER])
def test_a_create_that_fails_at_any_step_names_a_cluster(cluster: str) -> None:
    failures = set()
    for step in range(100):
        world = World()
        world.add(*NAMES)
        replica = Replica(world)
        Task("file", replica.read_file([Member(name) for name in NAMES])).run()
        task = Task("create", replica.create(ID, Wanted(cluster)))
        for _ in range(step):
            if not task.is_over:
                task.step()
        if task.is_over:
            break
        task.step("refused")
        task.run()
        if task.error is not None:
            assert isinstance(task.error, ClusterAway), task.error
            failures.add(task.error.cluster)
    assert failures == {HOME, cluster}
