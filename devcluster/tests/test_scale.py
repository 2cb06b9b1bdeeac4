"""devcluster with many objects and over a long time: pages, speed, memory, grace periods and finalizers."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, pod, service
from tests.waiting import until

PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}
PODS = "/api/v1/namespaces/default/pods"


async def put(session: aiohttp.ClientSession, *objects: dict[str, Any]) -> None:
    """Apply without kubectl, which would take longer than the measured work."""
    for obj in objects:
        path = f"/api/v1/namespaces/default/{obj['kind'].lower()}s/{obj['metadata']['name']}?fieldManager=t&force=true"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        async with session.patch(path, data=json.dumps(obj), headers=headers) as response:
            assert response.status == 201, await response.text()


async def delete(session: aiohttp.ClientSession, *objects: dict[str, Any]) -> None:
    for obj in objects:
        path = f"/api/v1/namespaces/default/{obj['kind'].lower()}s/{obj['metadata']['name']}"
        async with session.delete(path) as response:
            assert response.status == 200


async def page(session: aiohttp.ClientSession, token: str = "") -> tuple[int, dict[str, Any]]:
    query = {"limit": "500", **({"continue": token} if token else {})}
    async with session.get(PODS, params=query) as response:
        return response.status, await response.json()


async def test_more_than_500_pods_are_listed_and_watched_in_pages(
    kubectl: Kubectl, session: aiohttp.ClientSession
) -> None:
    await put(session, *(pod(f"p{n:04}", **PARKED) for n in range(1100)))
    names = [f"p{n:04}" for n in range(1100)]
    listed = (await kubectl("get", "pods", "-o", "json")).json
    assert [item["metadata"]["name"] for item in listed["items"]] == names
    for chunk, kinds in ((500, ["PodList", "PodList", "PodList"]), (0, ["Pod"] * 1099)):
        watch = await kubectl.start(
            *("get", "pods", "--watch", "--output-watch-events", "-o", "json", f"--chunk-size={chunk}")
        )
        assert watch.stdout is not None
        events = [json.loads(await watch.stdout.readline()) for _ in kinds]
        assert [(event["type"], event["object"]["kind"]) for event in events] == [("ADDED", kind) for kind in kinds]
        first = [item for event in events for item in event["object"].get("items", [event["object"]])]
        assert [item["metadata"]["name"] for item in first] == names
        await delete(session, pod(names.pop()))
        event = json.loads(await watch.stdout.readline())
        while event["type"] == "MODIFIED":
            event = json.loads(await watch.stdout.readline())
        assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", f"p{len(names):04}")
        watch.kill()
        await watch.communicate()


async def test_all_pages_show_the_version_of_the_first_until_it_expires(
    cluster: Cluster, session: aiohttp.ClientSession
) -> None:
    await put(session, *(pod(f"p{n:04}", **PARKED) for n in range(600)))
    _, first = await page(session)
    assert first["metadata"]["remainingItemCount"] == 100
    await delete(session, pod("p0599"))
    await put(session, pod("p0550x", **PARKED))
    _, second = await page(session, first["metadata"]["continue"])
    assert [item["metadata"]["name"] for item in second["items"]] == [f"p{n:04}" for n in range(500, 600)]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    cluster.forget_changes("Pod")
    status, expired = await page(session, first["metadata"]["continue"])
    assert (status, expired["reason"]) == (410, "Expired")


async def test_thousands_of_sandboxes_are_applied_and_listed_quickly(session: aiohttp.ClientSession) -> None:
    begun = time.process_time()
    for n in range(2000):
        await put(session, pod(f"p{n}", **PARKED), service(f"p{n}", type="ClusterIP"))
    assert time.process_time() - begun < 60  # 5 s on two cores
    begun = time.process_time()
    for kind in ("pods", "services"):
        async with session.get(f"/api/v1/namespaces/default/{kind}") as response:
            assert (await response.read()).count(b'"creationTimestamp"') == 2000
    assert time.process_time() - begun < 5  # 0.3 s, including the read


async def test_a_hundred_sandboxes_are_applied_in_one_call(cluster: Cluster, kubectl: Kubectl) -> None:
    objects = [obj for n in range(100) for obj in (pod(f"p{n}"), service(f"p{n}"))]
    begun = time.process_time()
    assert (await kubectl.apply(*objects)).rc == 0
    assert time.process_time() - begun < 10  # 0.5 s
    assert len(cluster.objects("Service")) == 100


async def test_deleted_sandboxes_leak_no_memory(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    """The first round fills the bounded logs of changes, events and requests; later rounds add nothing."""

    async def create_and_delete() -> int:
        for n in range(700):
            await put(session, pod(f"p{n}"), service(f"p{n}"))
            if n >= 20:
                await delete(session, pod(f"p{n - 20}"), service(f"p{n - 20}"))
        for n in range(680, 700):
            await delete(session, pod(f"p{n}"), service(f"p{n}"))
        await until(lambda: not cluster.objects("Pod"))
        gc.collect()
        return len(gc.get_objects())

    await create_and_delete()
    before = await create_and_delete()
    assert await create_and_delete() < before * 1.02


@pytest.mark.parametrize(("takes", "grace"), [(9000, 60), (20, 9000)])
async def test_a_pod_terminates_after_its_stop_time_or_its_grace_period(
    takes: float, grace: int, tmp_path: Path
) -> None:
    """The longer of the two times would be 225 s of real time; the Pod must not wait for it."""
    speed = 40
    async with Cluster(directory=tmp_path / "c", speed=speed) as cluster:
        cluster.stopping_takes(takes)
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        await kubectl.apply(pod(terminationGracePeriodSeconds=grace))
        cluster.put_pod_into("default", "x", "ready")
        begun = time.monotonic()
        deleted = await kubectl("delete", "pod/x", "--wait=false")
        assert deleted.rc == 0, deleted.stderr
        found = cluster.get("Pod", "default", "x")
        assert found is not None
        assert found["metadata"]["deletionGracePeriodSeconds"] == grace
        await until(lambda: cluster.get("Pod", "default", "x") is None)
        assert time.monotonic() - begun >= min(takes, grace) / speed


async def test_a_second_delete_can_only_shorten_the_grace_period(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.stopping_takes(3600)
    await kubectl.apply(pod(terminationGracePeriodSeconds=3000))
    cluster.put_pod_into("default", "x", "ready")
    for grace, held in ((2000, 2000), (2500, 2000), (5, 5)):
        deleted = await kubectl("delete", "pod/x", "--wait=false", f"--grace-period={grace}")
        assert deleted.rc == 0, deleted.stderr
        found = cluster.get("Pod", "default", "x")
        assert found is not None
        assert found["metadata"]["deletionGracePeriodSeconds"] == held
    await until(lambda: cluster.get("Pod", "default", "x") is None)


@pytest.mark.parametrize("kind", ["pod", "configmap"])
async def test_an_object_with_a_finalizer_stays_until_it_is_removed(kind: str, kubectl: Kubectl) -> None:
    config_map: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    obj = pod() if kind == "pod" else config_map
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    assert (await kubectl.apply(obj)).rc == 0
    assert (await kubectl("delete", f"{kind}/x", "--wait=false")).rc == 0
    await asyncio.sleep(0.3)
    held = (await kubectl("get", f"{kind}/x", "-o", "json")).json["metadata"]
    assert held["deletionTimestamp"]
    patched = await kubectl("patch", f"{kind}/x", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert patched.rc == 0, patched.stderr
    gone = await kubectl("get", f"{kind}/x", "--ignore-not-found", "-o", "name")
    assert (gone.rc, gone.stdout) == (0, "")
