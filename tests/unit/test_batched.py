"""Batched calls of kubectl: the result of each caller when a part of its batch fails."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.errors import ClusterTimeout, ClusterUnavailable, LimitReached, ProvisionerError
from sandboxes.kubectl.batched import BatchedKubectl
from sandboxes.kubectl.client import Kubectl
from sandboxes.objects import ACCESS_ANNOTATION, ACCESS_GATEWAY, APPLIED_AT_ANNOTATION
from tests.fakes import FakeCluster
from tests.record import case


def service(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "deer-flow", "annotations": {APPLIED_AT_ANNOTATION: f"at-{name}"}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "ports": [{"port": 8080}]},
    }


async def result_of(kubectl: BatchedKubectl, name: str) -> list[dict[str, Any]] | ProvisionerError:
    try:
        return await kubectl.apply([service(name)])
    except ProvisionerError as error:
        return error


async def test_an_applied_object_of_a_failed_batch_does_not_wait_for_one_that_hangs() -> None:
    cluster = FakeCluster()
    one = Kubectl(cluster, max_processes=8, max_waiting=8)
    kubectl = BatchedKubectl(one, max_processes=8, max_waiting=8, deadlines=Deadlines(batch_limit=1.2))
    # The apply of both creates one and fails for the other, which hangs when it is retried alone.
    cluster.put(service("whole"))
    cluster.answer_next("apply", "apply-quota-exceeded")
    cluster.hold_next("apply")
    whole, hangs = await asyncio.gather(result_of(kubectl, "whole"), result_of(kubectl, "hangs"))
    assert isinstance(whole, list)
    assert whole[0]["metadata"]["name"] == "whole"
    assert isinstance(hangs, ClusterTimeout)
    await kubectl.close()


async def test_a_batch_that_stores_or_deletes_nothing_fails_for_all_its_callers() -> None:
    cluster = FakeCluster(defaults={"apply", "delete"})
    kubectl = BatchedKubectl(Kubectl(cluster, max_processes=8, max_waiting=8), max_processes=8, max_waiting=8)
    answers = await asyncio.gather(*(result_of(kubectl, name) for name in ("a", "b", "c")))
    assert [type(one) for one in answers] == [ClusterUnavailable] * 3
    there = [cluster.put(service(name)) for name in ("a", "b", "c")]
    outcomes = await asyncio.gather(*(kubectl.delete([one]) for one in there), return_exceptions=True)
    assert [type(one) for one in outcomes] == [ClusterUnavailable] * 3
    assert len(cluster.objects) == 3
    await kubectl.close()


def pod(name: str, *, is_behind_gateway: bool) -> dict[str, Any]:
    marks = {ACCESS_ANNOTATION: ACCESS_GATEWAY} if is_behind_gateway else {}
    obj = service(name)
    obj["metadata"]["annotations"] |= marks
    return {**obj, "kind": "Pod", "spec": {"containers": [{"name": "sandbox", "image": "i", "env": []}]}}


@pytest.mark.parametrize(("is_behind_gateway", "left"), [(True, []), (False, None)])
async def test_only_a_pod_that_needs_no_service_is_all_that_a_failed_create_may_have_left(
    is_behind_gateway: bool, left: list[Any] | None
) -> None:
    cluster = FakeCluster()
    kubectl = BatchedKubectl(Kubectl(cluster, max_processes=8, max_waiting=8), max_processes=8, max_waiting=8)
    names = ("sandbox-made", "sandbox-refused")
    made, refused = (pod(name, is_behind_gateway=is_behind_gateway) for name in names)
    cluster.put(made)
    recorded = case("apply-quota-exceeded").stderr
    cluster.say_next("apply", re.sub(r'pods "[^"]+"', 'pods "sandbox-refused"', recorded.splitlines()[0]))
    calls = (kubectl.apply([made]), kubectl.apply([refused]))
    whole, error = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(whole, list)
    assert isinstance(error, LimitReached)
    assert error.left == left
    await kubectl.close()
