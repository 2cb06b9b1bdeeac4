"""Folders of the node and of claims: what Pods find there, and what becomes of them where a folder is missing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from devcluster.tests.levels import level, printed
from devcluster.tests.stages import Stage, rec, staged
from tests.kubectl import SPEED, pod
from tests.record import Case, case
from tests.waiting import until


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


def folder(name: str, path: str, kind: str = "Directory") -> dict[str, Any]:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def claim(name: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


def status(stage: Stage, namespace: str = "default", name: str = "x") -> dict[str, Any]:
    found = stage.cluster.get("Pod", namespace, name)
    assert found is not None
    statuses: list[dict[str, Any]] = found["status"].get("containerStatuses") or [{"state": {}}]
    return statuses[0]


def events(stage: Stage, reason: str, namespace: str = "default") -> list[dict[str, Any]]:
    return [event for event in stage.cluster.objects("Event", namespace) if event["reason"] == reason]


async def runs(stage: Stage, name: str = "x") -> bool:
    """Return whether the Pod's container runs, once it does or can't."""
    await until(lambda: {"running", "terminated"} & {*status(stage, name=name)["state"]} or events(stage, "Failed"))
    return "running" in status(stage, name=name)["state"]


async def test_a_folder_that_is_not_there_is_a_failed_mount_as_recorded(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=3, node_folders=["/no/such"]) as stage:
        await rec(stage)
        await stage.applied("apply-real-mount")
        await until(lambda: [event["count"] for event in events(stage, "FailedMount", "rec")] == [4])
        for name in ("events-failed-mount", "pod-failed-mount"):
            result = await stage.play(case(name))
            assert level(printed(result)) == level(case(name).stdout)


async def test_a_folder_that_is_made_later_is_found_when_the_kubelet_mounts_again(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED, node_folders=[]) as stage:
        await stage.kubectl.apply(pod(volumes=[folder("v", "/srv/a")], volumeMounts=[mount("v", "/mnt")]))
        await until(lambda: events(stage, "FailedMount"))
        stage.cluster.make_folder("/srv/a/b")
        await until(lambda: "running" in status(stage)["state"])


@pytest.mark.parametrize("kind", ["DirectoryOrCreate", ""])
async def test_a_folder_that_a_pod_makes_is_there_for_others(kind: str, tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED, node_folders=[]) as stage:
        await stage.kubectl.apply(pod(volumes=[folder("v", "/srv/a/b", kind)], volumeMounts=[mount("v", "/mnt")]))
        assert await runs(stage)
        other = pod("y", volumes=[folder("v", "/srv/a")], volumeMounts=[mount("v", "/mnt")])
        assert (await stage.kubectl.apply(other)).rc == 0
        await until(lambda: "running" in status(stage, name="y")["state"])
        assert not events(stage, "FailedMount")


def nested(recorded: Case) -> dict[str, Any]:
    """Return the Pod as it was applied, from how it was recorded afterwards."""
    spec = copy.deepcopy(recorded.stdout["spec"])
    spec["volumes"] = spec["volumes"][:2]
    spec["containers"][0]["volumeMounts"] = spec["containers"][0]["volumeMounts"][:2]
    del spec["nodeName"]
    meta = {key: recorded.stdout["metadata"][key] for key in ("name", "namespace", "labels")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def test_a_mount_below_a_read_only_one_is_a_start_error_as_recorded(tmp_path: Path) -> None:
    recorded, happened = case("pod-nested-mount-read-only"), case("events-nested-mount-read-only")
    async with staged(tmp_path) as stage:
        await stage.namespace("rec2-new")
        assert (await stage.kubectl.apply(nested(recorded))).rc == 0
        await until(lambda: "waiting" in status(stage, "rec2-new", "sandbox-nested")["state"])
        await until(lambda: events(stage, "BackOff", "rec2-new"))
        assert level(printed(await stage.play(recorded))) == level(recorded.stdout)
        told = level(printed(await stage.play(happened)))
    expected = level(happened.stdout)
    for event in (told["items"][-1], expected["items"][-1]):
        assert event["reason"] == "BackOff"
        del event["count"]  # a kubelet says it once more with each look at the Pod
    assert told == expected


async def test_a_container_that_can_not_start_and_must_not_restart_has_failed_as_recorded(tmp_path: Path) -> None:
    recorded = case("pod-nested-mount-read-only-never")
    async with staged(tmp_path) as stage:
        await stage.namespace("rec2-new")
        assert (await stage.kubectl.apply(nested(recorded))).rc == 0
        await until(lambda: "terminated" in status(stage, "rec2-new", "sandbox-nestednever")["state"])
        assert level(printed(await stage.play(recorded))) == level(recorded.stdout)


async def test_a_container_that_can_not_start_is_tried_again_with_back_off(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=50) as stage:
        await stage.kubectl.apply(nested_in(None, [], read_only=True))
        await until(lambda: status(stage)["restartCount"] == 3)
        assert "back-off 40s" in status(stage)["state"]["waiting"]["message"]


def nested_in(
    parent: dict[str, Any] | None, child: list[str], *, read_only: bool, sub_path: str = ""
) -> dict[str, Any]:
    """Make a Pod that mounts `parent` at /m, and the path in `child` at /m/inner; an emptyDir for what is not given."""
    volumes = [parent or {"name": "p", "emptyDir": {}}, *(folder("c", path) for path in child)]
    volumes += [] if child else [{"name": "c", "emptyDir": {}}]
    outer = mount(volumes[0]["name"], "/m", **({"readOnly": True} if read_only else {}))
    if sub_path:
        outer["subPath"] = sub_path
    return pod(volumes=volumes, volumeMounts=[mount("c", "/m/inner"), outer])


# the mount at /m, what is mounted at /m/inner, whether /m is read-only, whether the container starts
NESTED: dict[str, tuple[dict[str, Any] | None, list[str], bool, bool]] = {
    "a folder that contains it": (folder("p", "/srv/a"), [], True, True),
    "the same folder again": (folder("p", "/srv/a"), ["/srv/a/inner"], True, True),
    "a folder that does not": (folder("p", "/srv/b"), ["/srv/a/inner"], True, False),
    "a folder that may be written": (folder("p", "/srv/b"), [], False, True),
    "an emptyDir": (None, [], True, False),
    "an emptyDir that may be written": (None, [], False, True),
    "a claim": (claim("p"), [], True, False),
    "a claim that may be written": (claim("p"), [], False, True),
}


@pytest.mark.parametrize("name", NESTED)
async def test_a_mount_point_is_there_or_can_be_made_or_ends_the_container(name: str, tmp_path: Path) -> None:
    parent, child, read_only, starts = NESTED[name]
    async with staged(tmp_path, speed=SPEED, node_folders=["/srv/a/inner", "/srv/b"]) as stage:
        await stage.kubectl.apply(nested_in(parent, child, read_only=read_only))
        assert await runs(stage) is starts
        if not starts:
            assert events(stage, "Failed")[0]["message"].endswith("/rootfs/m/inner: read-only file system")


async def test_folders_of_a_claim_are_made_for_sub_paths_and_stay(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED, node_folders=[]) as stage:
        both = [
            mount("p", "/m", subPath="u", readOnly=True),
            mount("p", "/m/inner", subPath="u/inner"),
        ]
        assert (await stage.kubectl.apply(pod(volumes=[claim("p")], volumeMounts=both))).rc == 0
        assert await runs(stage)
        other = nested_in(claim("p"), [], read_only=True, sub_path="u")
        other["metadata"]["name"] = "y"
        assert (await stage.kubectl.apply(other)).rc == 0
        assert await runs(stage, "y")


async def test_without_declared_folders_every_folder_of_node_and_claims_is_there(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED) as stage:
        for name, parent in (("x", folder("p", "/srv/none")), ("y", claim("p"))):
            made = nested_in(parent, [], read_only=True)
            made["metadata"]["name"] = name
            assert (await stage.kubectl.apply(made)).rc == 0
            assert await runs(stage, name)


async def test_names_that_a_create_has_twice_are_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        twice = pod(volumes=[{"name": "a", "emptyDir": {}}] * 2)
        twice["spec"]["containers"] *= 2
        refused = await stage.kubectl("create", "-f", "-", stdin=twice)
    assert 'spec.volumes[1].name: Duplicate value: "a"' in refused.stderr
    assert 'spec.containers[1].name: Duplicate value: "sandbox"' in refused.stderr


def with_init(made: dict[str, Any], *, restart_policy: str = "Always") -> dict[str, Any]:
    """Give the container's mounts to an init container instead, before which another one runs."""
    spec = made["spec"]
    init = {"image": "init:1", "volumeMounts": spec["containers"][0].pop("volumeMounts")}
    spec["initContainers"] = [{"name": "first", "image": "init:1"}, {"name": "init", **init}]
    spec["restartPolicy"] = restart_policy
    return made


def pod_status(stage: Stage) -> dict[str, Any]:
    found = stage.cluster.get("Pod", "default", "x")
    assert found is not None
    of_pod: dict[str, Any] = found["status"]
    return of_pod


async def test_an_init_container_below_a_read_only_mount_is_a_start_error_with_back_off(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=50) as stage:
        assert (await stage.kubectl.apply(with_init(nested_in(None, [], read_only=True)))).rc == 0
        await until(lambda: pod_status(stage).get("initContainerStatuses", [{}, {}])[1].get("restartCount") == 2)
        of_pod = pod_status(stage)
        first, init = of_pod["initContainerStatuses"]
        assert first["state"]["terminated"]["reason"] == "Completed"
        assert init["lastState"]["terminated"]["reason"] == "StartError"
        assert init["lastState"]["terminated"]["message"].endswith("/rootfs/m/inner: read-only file system")
        assert status(stage)["state"]["waiting"] == {"reason": "PodInitializing"}
        assert of_pod["phase"] == "Pending"
        (initialized,) = (one for one in of_pod["conditions"] if one["type"] == "Initialized")
        assert initialized["message"] == "containers with incomplete status: [init]"


async def test_an_init_container_that_can_not_start_and_must_not_restart_fails_its_pod(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED) as stage:
        made = with_init(nested_in(None, [], read_only=True), restart_policy="Never")
        assert (await stage.kubectl.apply(made)).rc == 0
        await until(lambda: pod_status(stage)["phase"] == "Failed")
        assert pod_status(stage)["initContainerStatuses"][1]["state"]["terminated"]["reason"] == "StartError"


async def test_init_containers_whose_mount_points_are_there_end_before_the_containers_start(tmp_path: Path) -> None:
    async with staged(tmp_path, speed=SPEED) as stage:
        assert (await stage.kubectl.apply(with_init(nested_in(None, [], read_only=False)))).rc == 0
        assert await runs(stage)
        inits = pod_status(stage)["initContainerStatuses"]
        assert [one["state"]["terminated"]["reason"] for one in inits] == ["Completed", "Completed"]
        assert [one["ready"] for one in inits] == [True, True]
