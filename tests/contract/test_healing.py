"""Creates are idempotent, restore missing objects, respect the owner, and leave nothing if they fail.

Two "processes" are two services that share only their cluster.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.faults import refuse_next
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.contract.views import is_status
from tests.kubectl import Kubectl

POD = ("Pod", "deer-flow", "sandbox-a")
SERVICE = ("Service", "deer-flow", "sandbox-a-svc")


def uids(cluster: Cluster) -> tuple[Any, Any]:
    """Return the uids of the Pod and the Service; None for a missing one."""
    found = [cluster.get(*key) for key in (POD, SERVICE)]
    return tuple(obj["metadata"]["uid"] if obj else None for obj in found)  # type: ignore[return-value]


def spec_of(cluster: Cluster, key: tuple[str, str, str]) -> Any:
    obj = cluster.get(*key)
    assert obj is not None
    return obj["spec"], obj["metadata"]["annotations"], obj["metadata"]["labels"]


async def is_deleted(cluster: Cluster, key: tuple[str, str, str]) -> bool:
    return cluster.get(*key) is None


def manual_objects(template: Template, **changes: Any) -> list[dict[str, Any]]:
    """Return the Pod and Service that the service would make, without its annotations and revision."""
    objects = build(Sandbox("a", "t", "u"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z")
    for obj in objects:
        del obj["metadata"]["annotations"]
        del obj["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    del objects[0]["spec"]["containers"][0]["env"]
    objects[0]["spec"].update(changes)
    return objects


# Idempotent


async def test_a_repeated_create_returns_the_same_unchanged_sandbox(provisioner: Provisioner, cluster: Cluster) -> None:
    first = await create(provisioner, thread_id="t")
    before = uids(cluster), spec_of(cluster, POD), spec_of(cluster, SERVICE)
    second = await create(provisioner, thread_id="t")
    assert second["sandbox_url"] == first["sandbox_url"]
    assert (uids(cluster), spec_of(cluster, POD), spec_of(cluster, SERVICE)) == before


async def test_eight_concurrent_creates_from_two_processes_make_one_pod(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    processes = [await start_provisioner(), await start_provisioner()]
    answers = await asyncio.gather(*(create(processes[n % 2], thread_id="t") for n in range(8)))
    assert len({answer["sandbox_url"] for answer in answers}) == 1
    assert len(cluster.objects("Pod")) == 1
    assert len(cluster.objects("Service")) == 1


# Self-healing


async def test_a_create_restores_a_missing_pod(provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl) -> None:
    made = await create(provisioner)
    await kubectl("delete", "pod/sandbox-a", "-n", "deer-flow", "--grace-period=0", "--force")
    await until(lambda: is_deleted(cluster, POD))
    await until(lambda: is_status(provisioner, "a", 404))
    assert (await create(provisioner))["sandbox_url"] == made["sandbox_url"]
    assert (await provisioner.get(f"{URL}/a")).status == 200


async def test_a_create_restores_a_missing_service(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    pod_uid, _ = uids(cluster)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: is_status(provisioner, "a", 404))
    assert (await (await provisioner.get(URL)).json())["count"] == 0
    await create(provisioner)
    assert uids(cluster)[0] == pod_uid
    assert (await provisioner.get(f"{URL}/a")).status == 200


@pytest.mark.parametrize(
    "ended",
    [
        {"phase": "Failed"},
        pytest.param({"phase": "Succeeded"}, marks=pytest.mark.slow),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, marks=pytest.mark.slow),
    ],
)
async def test_a_create_replaces_an_ended_pod(
    provisioner: Provisioner, cluster: Cluster, ended: dict[str, Any]
) -> None:
    made = await create(provisioner)
    before = uids(cluster)
    await until_running(provisioner)
    cluster.set_pod("deer-flow", "sandbox-a", **ended)

    async def is_known() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json())["status"] != "Running")

    await until(is_known)
    again = await create(provisioner)
    assert again["status"] in {"Pending", "Running"}
    assert again["sandbox_url"] == made["sandbox_url"]
    assert uids(cluster)[0] != before[0]


async def test_a_create_waits_for_a_terminating_pod_and_replaces_it(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    async with Cluster(directory=tmp_path / "slow", speed=0.1) as slow:  # a Pod's grace period takes 50 s here
        slow.stopping_takes(3600)
        provisioner = await start_provisioner(cluster=slow)
        await create(provisioner)
        before, _ = uids(slow)
        await until_running(provisioner)
        assert (await provisioner.delete(f"{URL}/a")).status == 200
        assert uids(slow)[0] == before  # still terminating
        waiting = asyncio.create_task(create(provisioner))
        now = ("--grace-period=0", "--force", "--wait=false")
        await Kubectl(slow.kubeconfig, tmp_path / "home")("delete", "pod/sandbox-a", "-n", "deer-flow", *now)
        answer = await waiting
        assert answer["status"] in {"Pending", "Running"}
        after, _ = uids(slow)
        assert after not in {before, None}
        assert (await provisioner.get(f"{URL}/a")).status == 200


@pytest.mark.slow
async def test_a_pod_terminating_past_the_create_deadline_is_503(
    start_provisioner: StartProvisioner, tmp_path: Any
) -> None:
    async with Cluster(directory=tmp_path / "slow", speed=0.1) as slow:
        slow.stopping_takes(3600)
        provisioner = await start_provisioner(cluster=slow)
        await create(provisioner)
        await until_running(provisioner)
        await provisioner.delete(f"{URL}/a")
        provisioner.set_deadlines(create=5.0)
        response = await provisioner.post(URL, json={"sandbox_id": "a"})
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert await response.json() == {"detail": "The sandbox of the same id is still being deleted"}


async def until_running(provisioner: Provisioner) -> None:
    async def running() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json()).get("status") == "Running")

    await until(running)


# Owners


async def test_another_owners_create_is_409_and_changes_nothing(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    first, second = await start_provisioner(), await start_provisioner()
    made = await create(first, thread_id="t", user_id="u")
    before = uids(cluster), spec_of(cluster, POD), spec_of(cluster, SERVICE)
    others = ({"thread_id": "t2", "user_id": "u"}, {"thread_id": "t", "user_id": "u2"})
    for provisioner, other in itertools.product((first, second), others):
        response = await provisioner.post(URL, json={"sandbox_id": "a", **other})
        assert response.status == 409
        assert await response.json() == {"detail": "Sandbox 'a' belongs to another thread or user"}
    assert (uids(cluster), spec_of(cluster, POD), spec_of(cluster, SERVICE)) == before
    assert (await create(second, thread_id="t", user_id="u"))["sandbox_url"] == made["sandbox_url"]


async def test_of_concurrent_creates_by_two_owners_one_owner_gets_409(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    """Both find nothing and apply: the immutable revision lets only one of them succeed."""
    first, second = await start_provisioner(), await start_provisioner()
    responses = await asyncio.gather(
        *(
            provisioner.post(URL, json={"sandbox_id": "a", "thread_id": thread})
            for provisioner, thread in ((first, "t1"), (second, "t2"), (first, "t1"), (second, "t2"))
        )
    )
    assert sorted(response.status for response in responses) == [200, 200, 409, 409]
    winner = "t1" if responses[0].status == 200 else "t2"
    pod = cluster.get(*POD)
    assert pod is not None
    assert pod["metadata"]["annotations"]["provisioner/thread-id"] == winner
    assert (await first.get(f"{URL}/a")).status == 200
    await create(first, thread_id=winner)


async def test_a_manually_created_sandbox_with_the_same_user_data_is_adopted(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    result = await kubectl.apply(*manual_objects(template), manager="kubectl")
    assert result.rc == 0, result.stderr
    before, _ = uids(cluster)
    assert (await provisioner.get(f"{URL}/a")).status == 200

    await create(provisioner, thread_id="t", user_id="u")
    assert uids(cluster)[0] == before
    for key in (POD, SERVICE):
        _, _, labels = spec_of(cluster, key)
        assert labels["app.kubernetes.io/managed-by"] == "sandbox-provisioner"
    other = await provisioner.post(URL, json={"sandbox_id": "a", "thread_id": "t2"})
    assert other.status == 409


async def test_a_pod_of_the_predecessor_without_a_service_is_adopted_and_completed(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    pod, _ = manual_objects(template)
    result = await kubectl("create", "-f", "-", stdin=pod)
    assert result.rc == 0, result.stderr
    before, _ = uids(cluster)
    await create(provisioner, thread_id="t")
    assert uids(cluster)[0] == before
    assert (await provisioner.get(f"{URL}/a")).status == 200


async def test_a_manually_created_sandbox_with_other_user_data_is_409_and_unchanged(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    objects = manual_objects(template, volumes=[{"name": "user-data", "hostPath": {"path": "/elsewhere"}}])
    assert (await kubectl.apply(*objects, manager="kubectl")).rc == 0
    await until(lambda: None not in provisioner.view.sandbox("a"))
    before = copy.deepcopy([cluster.get(*POD), cluster.get(*SERVICE)])
    response = await provisioner.post(URL, json={"sandbox_id": "a", "thread_id": "t"})
    assert response.status == 409
    after = [cluster.get(*POD), cluster.get(*SERVICE)]
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        assert old["spec"] == new["spec"] or "nodeName" in new["spec"]
        assert old["metadata"]["uid"] == new["metadata"]["uid"]
        assert "annotations" not in new["metadata"]


@pytest.mark.slow
async def test_a_new_default_image_does_not_change_a_running_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    old = await start_provisioner(SANDBOX_IMAGE="sandbox:1")
    made = await create(old)
    before = uids(cluster), spec_of(cluster, POD)[0]["containers"]
    new = await start_provisioner(SANDBOX_IMAGE="sandbox:2")
    assert (await create(new))["sandbox_url"] == made["sandbox_url"]
    assert (uids(cluster), spec_of(cluster, POD)[0]["containers"]) == before


@pytest.mark.slow
async def test_concurrent_creates_with_different_images_make_one_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    old = await start_provisioner(SANDBOX_IMAGE="sandbox:1")
    new = await start_provisioner(SANDBOX_IMAGE="sandbox:2")
    answers = await asyncio.gather(create(old), create(new))
    assert answers[0]["sandbox_url"] == answers[1]["sandbox_url"]
    assert len(cluster.objects("Pod")) == 1


async def test_each_apply_writes_a_later_applied_at(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: is_status(provisioner, "a", 404))
    await create(provisioner)
    first = spec_of(cluster, SERVICE)[1]["provisioner/applied-at"]
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: is_status(provisioner, "a", 404))
    await create(provisioner)
    assert spec_of(cluster, SERVICE)[1]["provisioner/applied-at"] > first


# All or nothing


@pytest.mark.parametrize(
    ("resource", "case", "status"),
    [
        ("services", "apply-quota-exceeded", 429),
        pytest.param("services", "apply-nodeports-exhausted", 429, marks=pytest.mark.slow),
        pytest.param("pods", "apply-quota-exceeded", 429, marks=pytest.mark.slow),
        pytest.param("pods", "apply-pod-security-violation", 502, marks=pytest.mark.slow),
    ],
)
async def test_a_partly_rejected_create_leaves_nothing(
    provisioner: Provisioner, cluster: Cluster, resource: str, case: str, status: int
) -> None:
    refuse_next(cluster, "PATCH", resource, case, times=4)
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert response.status == status
    await until(lambda: is_deleted(cluster, POD))
    await until(lambda: is_deleted(cluster, SERVICE))


async def test_a_failed_create_keeps_existing_objects(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    pod_uid, _ = uids(cluster)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: is_status(provisioner, "a", 404))
    refuse_next(cluster, "PATCH", "services", "apply-nodeports-exhausted")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
    assert uids(cluster) == (pod_uid, None)
    await create(provisioner)
    assert uids(cluster)[0] == pod_uid


@pytest.mark.slow
async def test_exhausted_node_ports_are_429_and_leave_no_pod(
    start_provisioner: StartProvisioner, tmp_path: Any
) -> None:
    async with Cluster(directory=tmp_path / "small", node_port_range=range(31900, 31901), speed=10) as small:
        provisioner = await start_provisioner(cluster=small)
        await create(provisioner, "first")
        response = await provisioner.post(URL, json={"sandbox_id": "second"})
        assert (response.status, await response.json()) == (
            429,
            {"detail": "The cluster has no free node port left"},
        )

        async def only_the_first() -> bool:
            return [pod["metadata"]["name"] for pod in small.objects("Pod")] == ["sandbox-first"]

        await until(only_the_first)
        assert (await provisioner.get(f"{URL}/first")).status == 200


async def test_a_create_succeeds_after_the_namespace_was_deleted(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    assert (await kubectl("delete", "namespace", "deer-flow", "--wait=false")).rc == 0
    await until(lambda: is_deleted(cluster, ("Namespace", "", "deer-flow")))
    assert (await provisioner.get(f"{URL}/a")).status == 404
    assert (await (await provisioner.get(URL)).json())["count"] == 0
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await create(provisioner)
    assert (await provisioner.get(f"{URL}/a")).status == 200
