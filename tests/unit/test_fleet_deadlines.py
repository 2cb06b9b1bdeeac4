"""The time that a request to several clusters takes in all, in virtual time, over kubectls that are slow or hang."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandboxes import objects as kube
from sandboxes.clusters_file import ClusterEntry
from sandboxes.deadlines import DEADLINES as D
from sandboxes.deadlines import budget, left
from sandboxes.errors import ClusterTimeout, LimitReached, ObjectsMissing, OutOfTime, ProvisionerError
from sandboxes.fleet.markers import RECORD_NAME, Record, build_record
from sandboxes.fleet.protocol import ClusterAway, Member
from sandboxes.fleet.rendezvous import home, order
from sandboxes.fleet.service import Fleet, Units
from sandboxes.models.requests import CreateRequest
from sandboxes.objects import KubeObject
from sandboxes.settings import Settings
from sandboxes.tasks import Signal
from tests.unit.virtual_time import now, run

NAMES = ("a", "b", "c")
FOREVER = 1e6
ID = "x"
HOME, SECOND, THIRD = order(ID, dict.fromkeys(NAMES, 1.0))

POD: KubeObject = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": kube.pod_name(ID), "namespace": "n", "uid": "u", "labels": kube.labels_of(ID)},
}


class SlowKubectl:
    """Stores ConfigMaps. Each call takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.writes = 1
        record = build_record(Record(frozenset(NAMES), epoch=1), "n")
        self.stored = {RECORD_NAME: {**record, "metadata": {**record["metadata"], "resourceVersion": "1"}}}

    async def run(self, verb: str, *_args: str, stdin: bytes) -> bytes:
        await asyncio.sleep(self.seconds)
        given = json.loads(stdin)["items"]
        if verb == "replace":
            return json.dumps(self._put(given[0])).encode()
        there = [self.stored[name] for one in given if (name := one["metadata"]["name"]) in self.stored]
        stdout = json.dumps(kube.as_list(there)).encode()
        missing = [one for one in given if one["metadata"]["name"] not in self.stored]
        if not missing:
            return stdout
        error = ObjectsMissing(
            "missing", names=frozenset((kube.RESOURCES[one["kind"]], one["metadata"]["name"]) for one in missing)
        )
        error.stdout = stdout
        raise error

    async def create(self, objects: list[KubeObject]) -> list[KubeObject]:
        await asyncio.sleep(self.seconds)
        return [self._put(one) for one in objects]

    async def delete_exactly(self, _obj: KubeObject) -> bool:
        await asyncio.sleep(self.seconds)
        return True

    def _put(self, obj: KubeObject) -> KubeObject:
        self.writes += 1
        marks = {
            "resourceVersion": str(self.writes),
            "uid": f"u-{id(self)}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        stored = {**obj, "metadata": {**obj["metadata"], **marks}}
        self.stored[obj["metadata"]["name"]] = stored
        return stored


class Service:
    """SandboxService with these times: its own deadline, and the clean-up after it, are kept as it promises."""

    def __init__(self, kubectl: SlowKubectl, make_seconds: float) -> None:
        self.cluster = SimpleNamespace(kubectl=kubectl, namespace="n", deadlines=D, directory_view=None)
        self.cluster.seen = self.cluster.known = lambda _id: (None, None)
        self._make_seconds = make_seconds

    async def make(self, _request: CreateRequest, _marks: dict[str, str], seconds: float) -> Any:
        if self._make_seconds > seconds:
            await asyncio.sleep(seconds + D.undo)
            raise ClusterTimeout
        await asyncio.sleep(self._make_seconds)
        raise LimitReached("full")

    async def get(self, _id: str) -> Any:
        await asyncio.sleep(FOREVER)

    async def delete(self, _id: str) -> None:
        await asyncio.sleep(FOREVER)


def fleet(settings: Settings, make_seconds: float = 3.0, **seconds: float) -> Fleet:
    """Return a fleet of clusters whose calls take these times; 0.1 s by default."""
    entries = [ClusterEntry(name) for name in NAMES]
    units = {
        entry.name: SimpleNamespace(
            name=entry.name,
            entry=entry,
            settings=settings,
            service=Service(SlowKubectl(seconds.get(entry.name, 0.1)), make_seconds),
        )
        for entry in entries
    }
    found = Fleet(cast("Units", SimpleNamespace(entries=entries, units=units, changed=Signal())), settings, D)
    found.directory.homes.read(Member(name) for name in NAMES)
    return found


def error_after(request: Callable[[], Awaitable[object]]) -> tuple[ProvisionerError, float]:
    """Return the error of a request, and the time that it took."""

    async def ask() -> tuple[ProvisionerError, float]:
        with pytest.raises(ProvisionerError) as caught:
            await request()
        return caught.value, now()

    return run(ask())


def create(fleet: Callable[[], Fleet]) -> tuple[ProvisionerError, float]:
    return error_after(lambda: fleet().create(CreateRequest(sandbox_id=ID)))


def test_the_home_comes_first() -> None:
    assert home(ID, NAMES) == HOME


def test_a_create_whose_home_hangs_is_answered_after_one_read(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    error, seconds = create(lambda: fleet(settings, **{HOME: FOREVER}))
    assert isinstance(error, ClusterAway)
    assert error.cluster == HOME
    assert seconds <= D.read


@pytest.mark.parametrize("make_seconds", [1.0, 4.0, 8.0, FOREVER])
@pytest.mark.parametrize("slow", [0.1, 2.0, 4.0, 7.0])
def test_a_create_that_tries_several_clusters_is_answered_in_the_time_of_one(
    make_settings: Callable[..., Settings], make_seconds: float, slow: float
) -> None:
    settings = make_settings()
    error, seconds = create(lambda: fleet(settings, make_seconds, **dict.fromkeys(NAMES, slow)))
    assert isinstance(error, LimitReached | ClusterTimeout | OutOfTime | ClusterAway)
    assert seconds <= D.create + D.undo + 0.001


def test_a_get_and_a_delete_are_answered_in_the_time_of_one(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    for name, most in (("get", D.read), ("delete", D.delete)):
        for slow in (0.1, 5.0, FOREVER):

            def ask(name: str = name, slow: float = slow) -> Awaitable[object]:
                found = fleet(settings, **dict.fromkeys(NAMES, slow))
                for cluster in found.clusters.values():
                    kubectl = cluster.unit.service.cluster.kubectl
                    assert isinstance(kubectl, SlowKubectl)
                    kubectl.stored[POD["metadata"]["name"]] = POD
                return cast("Awaitable[object]", getattr(found, name)(ID))

            error, seconds = error_after(ask)
            assert isinstance(error.__cause__, ClusterTimeout | TimeoutError), error.__cause__
            assert seconds <= most + 0.001, (name, slow)


def test_a_call_that_had_little_time_says_nothing_about_its_cluster(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()

    async def ask() -> None:
        cluster = fleet(settings, **{HOME: FOREVER}).clusters[HOME]
        for _ in range(5):
            with budget(1.0), pytest.raises(OutOfTime):
                await cluster.look(ID)
        states = [cluster.breaker.is_open]
        for _ in range(3):
            with pytest.raises(ClusterTimeout):
                await cluster.look(ID)
        states.append(cluster.breaker.is_open)
        assert states == [False, True]
        await cluster.finish()

    run(ask())


def test_a_budget_within_another_is_no_longer_than_it() -> None:
    async def ask() -> None:
        with budget(2.0):
            with budget(9.0):
                assert left(5.0) == 2.0
            with budget(1.0):
                await asyncio.sleep(4.0)
                assert left(5.0) == 0.0
            assert left(5.0) == 0.0
        assert left(5.0) == 5.0

    run(ask())
