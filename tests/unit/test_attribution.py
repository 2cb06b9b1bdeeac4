"""A batch that the cluster refuses in part: what each caller is told, and how many calls of kubectl it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.errors import LimitReached, PatchForbidden, ProvisionerError, TemplateRefused
from sandboxes.kubectl.batched import BatchedKubectl
from sandboxes.kubectl.client import Kubectl
from tests.fakes import FakeCluster
from tests.record import case

QUOTA = case("apply-quota-exceeded").stderr
FULL = case("apply-nodeports-exhausted").stderr
INVALID = 'The Pod "sandbox-{}" is invalid: metadata.labels: Invalid value: "-": a valid label must be …\n'

Objects = list[dict[str, Any]]


def pair(sandbox_id: str) -> Objects:
    """Return a Pod and a Service that one create applies."""
    pod, service = kube.references_of(sandbox_id, "deer-flow")
    for obj in (pod, service):
        obj["metadata"]["annotations"] = {kube.APPLIED_AT_ANNOTATION: f"at-{sandbox_id}"}
    pod["spec"] = {"containers": [{"name": "sandbox"}]}
    service["spec"] = {"type": "NodePort", "ports": [{"port": 8080}]}
    return [pod, service]


def quota(sandbox_id: str, limit: str = "pods=1") -> str:
    """Return the recorded refusal, of this sandbox's Pod and for this limit."""
    return QUOTA.replace("sandbox-over", f"sandbox-{sandbox_id}").replace("pods=1", limit)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def kubectl(cluster: FakeCluster) -> AsyncIterator[BatchedKubectl]:
    batched = BatchedKubectl(Kubectl(cluster, max_processes=8, max_waiting=8), max_processes=8, max_waiting=8)
    yield batched
    await batched.close()


async def told(kubectl: BatchedKubectl, *ids: str) -> list[Objects | ProvisionerError]:
    """Apply the sandboxes in one group; return what each caller is told."""

    async def one(sandbox_id: str) -> Objects | ProvisionerError:
        try:
            return await kubectl.apply(pair(sandbox_id))
        except ProvisionerError as error:
            return error

    return await asyncio.gather(*map(one, ids))


def put(cluster: FakeCluster, *objects: dict[str, Any]) -> None:
    for obj in objects:
        cluster.put(obj)


async def test_each_refused_pod_of_a_group_is_told_without_another_apply(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    put(cluster, *pair("fits"), pair("a")[1], pair("b")[1])
    cluster.say_next("apply", quota("a") + quota("b"))
    a, fits, b = await told(kubectl, "a", "fits", "b")
    assert (type(a), type(b)) == (LimitReached, LimitReached)
    assert isinstance(fits, list)
    assert cluster.verbs() == {"apply": 1, "get": 1}


async def test_each_is_told_its_own_error(cluster: FakeCluster, kubectl: BatchedKubectl) -> None:
    cluster.say_next("apply", quota("a") + INVALID.format("b") + quota("c"))
    put(cluster, *(pair(one)[1] for one in "abc"))
    a, b, c = await told(kubectl, "a", "b", "c")
    assert [type(one) for one in (a, b, c)] == [LimitReached, TemplateRefused, LimitReached]
    assert isinstance(b, TemplateRefused)
    assert "sandbox-b" in b.detail
    assert "sandbox-a" not in b.detail
    assert cluster.verbs()["apply"] == 1


async def test_of_a_quota_of_amounts_the_smaller_requests_are_made(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    put(cluster, *pair("small"), *pair("tiny"), pair("large")[1])
    cluster.say_next("apply", quota("large", "requests.cpu=4"))
    small, large, tiny = await told(kubectl, "small", "large", "tiny")
    assert isinstance(small, list)
    assert isinstance(tiny, list)
    assert isinstance(large, LimitReached)
    assert cluster.verbs()["apply"] == 1


async def test_a_message_without_a_name_counts_for_each_object_that_was_not_made(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    put(cluster, *(pair(one)[0] for one in "abc"))
    cluster.say_next("apply", FULL * 3)
    assert [type(one) for one in await told(kubectl, "a", "b", "c")] == [LimitReached] * 3
    assert cluster.verbs()["apply"] == 1


async def test_rights_that_are_missing_are_told_to_all_at_once(cluster: FakeCluster, kubectl: BatchedKubectl) -> None:
    stderr = case("apply-forbidden").stderr
    cluster.say_next("apply", stderr.replace("sandbox-f", "sandbox-a") + stderr.replace("sandbox-f", "sandbox-b"))
    assert [type(one) for one in await told(kubectl, "a", "b")] == [PatchForbidden] * 2
    assert cluster.verbs()["apply"] == 1


async def test_refused_credentials_are_told_to_all_at_once(cluster: FakeCluster, kubectl: BatchedKubectl) -> None:
    for verb in ("apply", "get"):
        cluster.answer_next(verb, "unauthorized")
    answers = await told(kubectl, "a", "b", "c")
    assert {str(one) for one in answers} == {"The cluster refuses the provisioner's credentials"}
    assert cluster.verbs() == {"apply": 1, "get": 1}


async def test_if_the_messages_tell_too_little_one_is_tried_for_all(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    cluster.say_next("apply", FULL)
    put(cluster, *(pair(one)[0] for one in "abc"))
    cluster.say_next("apply", FULL)
    assert [type(one) for one in await told(kubectl, "a", "b", "c")] == [LimitReached] * 3
    assert cluster.verbs()["apply"] == 2


async def test_if_the_messages_tell_too_little_of_amounts_each_is_tried(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    for sandbox_id in ("x", "a"):
        cluster.say_next("apply", quota(sandbox_id, "limits.memory=4Gi"))
    put(cluster, *(pair(one)[1] for one in "abc"))
    a, b, c = await told(kubectl, "a", "b", "c")
    assert isinstance(a, LimitReached)
    assert isinstance(b, list)
    assert isinstance(c, list)


async def test_after_a_pod_that_is_refused_alone_its_service_is_not_made(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    cluster.say_next("apply", quota("x"))
    cluster.say_next("apply", quota("x"))
    await told(kubectl, "a", "b")
    assert cluster.objects == {}


async def test_many_that_failed_are_deleted_by_two_calls(cluster: FakeCluster, kubectl: BatchedKubectl) -> None:
    there = [cluster.put(obj) for one in "abc" for obj in pair(one)]
    await asyncio.gather(*(kubectl.discard(there[number : number + 2]) for number in (0, 2, 4)))
    assert cluster.objects == {}
    assert cluster.verbs() == {"apply": 1, "delete": 1}


async def test_of_many_that_failed_the_one_that_was_changed_stays(
    cluster: FakeCluster, kubectl: BatchedKubectl
) -> None:
    there = [cluster.put(obj) for one in "abc" for obj in pair(one)]
    changed = cluster.put(pair("b")[0])
    calls = (kubectl.discard(there[number : number + 2]) for number in (0, 2, 4))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[1], ProvisionerError)
    assert cluster.pod("b") is not None
    assert cluster.objects[cluster.key(changed)]["metadata"]["uid"] == changed["metadata"]["uid"]
