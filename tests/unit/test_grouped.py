"""What is done together, and what each caller is told when a part of it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandboxes.errors import ClusterTimeout, ClusterUnavailable, ProvisionerError
from sandboxes.kubectl.batched import GroupedKubectl
from sandboxes.objects import APPLIED_AT_ANNOTATION
from tests.fakes import FakeCluster


def service(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "deer-flow", "annotations": {APPLIED_AT_ANNOTATION: f"at-{name}"}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "ports": [{"port": 8080}]},
    }


async def told(kubectl: GroupedKubectl, name: str) -> list[dict[str, Any]] | ProvisionerError:
    try:
        return await kubectl.apply([service(name)])
    except ProvisionerError as error:
        return error


async def test_what_is_whole_after_its_group_failed_does_not_wait_for_another_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandboxes.kubectl.batched.LIMIT_SECONDS", 1.2)
    cluster = FakeCluster()
    kubectl = GroupedKubectl(cluster, max_processes=8, max_waiting=8)
    # The apply of both makes one and fails for the other, which hangs when it is tried alone.
    cluster.put(service("whole"))
    cluster.answer_next("apply", "apply-quota-exceeded")
    cluster.hold_next("apply")
    whole, hangs = await asyncio.gather(told(kubectl, "whole"), told(kubectl, "hangs"))
    assert isinstance(whole, list)
    assert whole[0]["metadata"]["name"] == "whole"
    assert isinstance(hangs, ClusterTimeout)
    await kubectl.close()


async def test_a_group_that_stores_or_deletes_nothing_is_believed_by_none_of_its_callers() -> None:
    cluster = FakeCluster(defaults={"apply", "delete"})
    kubectl = GroupedKubectl(cluster, max_processes=8, max_waiting=8)
    answers = await asyncio.gather(*(told(kubectl, name) for name in ("a", "b", "c")))
    assert [type(one) for one in answers] == [ClusterUnavailable] * 3
    there = [cluster.put(service(name)) for name in ("a", "b", "c")]
    outcomes = await asyncio.gather(*(kubectl.delete([one]) for one in there), return_exceptions=True)
    assert [type(one) for one in outcomes] == [ClusterUnavailable] * 3
    assert len(cluster.objects) == 3
    await kubectl.close()
