"""When a new Pod counts as one that finds no node, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandboxes import objects as kube
from sandboxes.cluster.cluster import Cluster
from sandboxes.deadlines import Deadlines
from sandboxes.errors import ConnectionFailed
from sandboxes.objects import KubeObject
from sandboxes.service.scheduling import finds_no_node, is_unschedulable
from tests.record import case
from tests.unit.virtual_time import now, run

UNSCHEDULABLE = case("pod-unschedulable").stdout
MOMENT, MOST = 5.0, 10.0


def pod(status: KubeObject, *, node: str | None = None, **annotations: str) -> KubeObject:
    spec = {"containers": [{"name": "sandbox"}], **({"nodeName": node} if node else {})}
    marks = {f"provisioner/{key.replace('_', '-')}": text for key, text in annotations.items()}
    return {"kind": "Pod", "metadata": {"uid": "u", "annotations": marks}, "spec": spec, "status": status}


NEW = pod({"phase": "Pending"})
WITHOUT_NODE = pod(UNSCHEDULABLE["status"])


def outcome(at: Callable[[float], KubeObject | None], *, is_cached: bool = True) -> tuple[bool, float]:
    """Return what is found of a Pod that is so at each time, and when."""

    async def look(_id: str) -> tuple[KubeObject | None, None]:
        return at(now()), None

    cluster = SimpleNamespace(
        deadlines=Deadlines(), is_certain=lambda _id: is_cached, seen=lambda _id: (at(now()), None), look=look
    )

    async def ask() -> tuple[bool, float]:
        found = await finds_no_node(cast("Cluster", cluster), "a", "u", moment=MOMENT, most=MOST)
        return found, now()

    return run(ask())


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_pod_finds_no_node_once_the_scheduler_has_said_so_for_a_moment(*, is_cached: bool) -> None:
    found, when = outcome(lambda time: WITHOUT_NODE if time >= 2 else NEW, is_cached=is_cached)
    assert found
    assert 7 <= when <= 8.5


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (None, "gone"),
        ({**WITHOUT_NODE, "metadata": {"uid": "another"}}, "another Pod"),
        (pod({"phase": "Pending"}, node="n1"), "on a node"),
        (pod({"phase": "Failed"}), "ended"),
        (pod(UNSCHEDULABLE["status"], confirmed_at="x"), "returned by another create"),
        (pod(UNSCHEDULABLE["status"], refused_at="x"), "about to be deleted"),
    ],
)
def test_a_pod_is_not_waited_for_once_it_can_not_move(later: KubeObject | None, why: str) -> None:
    found, when = outcome(lambda time: later if time >= 3 else WITHOUT_NODE)
    assert not found, why
    assert 3 <= when <= 3.5


def test_a_pod_of_which_the_scheduler_says_nothing_stays() -> None:
    found, when = outcome(lambda _time: NEW)
    assert not found
    assert 5 <= when <= 5.5


def test_a_node_that_was_promised_begins_a_new_moment() -> None:
    promised = pod({**UNSCHEDULABLE["status"], "nominatedNodeName": "n1"})
    assert not is_unschedulable(promised)
    found, when = outcome(lambda time: promised if 3 <= time < 4 else WITHOUT_NODE)
    assert found
    assert 9 <= when <= 9.5
    found, when = outcome(lambda time: promised if int(time) % 4 == 3 else WITHOUT_NODE)
    assert not found
    assert 7 <= when <= 7.5


def test_a_cluster_that_can_not_be_read_raises_its_error() -> None:
    def fail(_time: float) -> Any:
        raise ConnectionFailed("away")

    with pytest.raises(ConnectionFailed):
        outcome(fail)


def test_the_recorded_pod_is_one_that_finds_no_node() -> None:
    assert is_unschedulable(UNSCHEDULABLE)
    assert kube.condition_of(UNSCHEDULABLE, "PodScheduled")["reason"] == "Unschedulable"
