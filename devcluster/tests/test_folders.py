"""Folders of the node and of claims: mounts, missing folders, nested mounts and sub-paths."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from devcluster.tests.normalize import normalize, parsed_stdout
from devcluster.tests.replay import Replay, namespace_rec, replay_cluster
from tests.kubectl import SPEED, pod
from tests.record import Case, case
from tests.waiting import until


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


def folder(name: str, path: str, kind: str = "Directory") -> dict[str, Any]:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def claim(name: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


def status(replay: Replay, namespace: str = "default", name: str = "x") -> dict[str, Any]:
    found = replay.cluster.get("Pod", namespace, name)
    assert found is not None
    statuses: list[dict[str, Any]] = found["status"].get("containerStatuses") or [{"state": {}}]
    return statuses[0]


def events(replay: Replay, reason: str, namespace: str = "default") -> list[dict[str, Any]]:
    return [event for event in replay.cluster.objects("Event", namespace) if event["reason"] == reason]


async def runs(replay: Replay, name: str = "x") -> bool:
    """Wait until the Pod's container runs or fails, and return whether it runs."""
    await until(lambda: {"running", "terminated"} & {*status(replay, name=name)["state"]} or events(replay, "Failed"))
    return "running" in status(replay, name=name)["state"]


async def test_a_missing_folder_is_a_failed_mount_as_recorded(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=3, node_folders=["/no/such"]) as replay:
        await namespace_rec(replay)
        await replay.apply_case("apply-real-mount")
        await until(lambda: [event["count"] for event in events(replay, "FailedMount", "rec")] == [4])
        for name in ("events-failed-mount", "pod-failed-mount"):
            result = await replay.run(case(name))
            assert normalize(parsed_stdout(result)) == normalize(case(name).stdout)


async def test_a_folder_made_later_is_found_by_the_next_mount_attempt(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED, node_folders=[]) as replay:
        await replay.kubectl.apply(pod(volumes=[folder("v", "/srv/a")], volumeMounts=[mount("v", "/mnt")]))
        await until(lambda: events(replay, "FailedMount"))
        replay.cluster.make_folder("/srv/a/b")
        await until(lambda: "running" in status(replay)["state"])


@pytest.mark.parametrize("kind", ["DirectoryOrCreate", ""])
async def test_a_folder_created_for_one_pod_is_there_for_others(kind: str, tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED, node_folders=[]) as replay:
        await replay.kubectl.apply(pod(volumes=[folder("v", "/srv/a/b", kind)], volumeMounts=[mount("v", "/mnt")]))
        assert await runs(replay)
        other = pod("y", volumes=[folder("v", "/srv/a")], volumeMounts=[mount("v", "/mnt")])
        assert (await replay.kubectl.apply(other)).rc == 0
        await until(lambda: "running" in status(replay, name="y")["state"])
        assert not events(replay, "FailedMount")


def nested(recorded: Case) -> dict[str, Any]:
    """Return the Pod as it was applied, made from its recorded state."""
    spec = copy.deepcopy(recorded.stdout["spec"])
    spec["volumes"] = spec["volumes"][:2]
    spec["containers"][0]["volumeMounts"] = spec["containers"][0]["volumeMounts"][:2]
    del spec["nodeName"]
    meta = {key: recorded.stdout["metadata"][key] for key in ("name", "namespace", "labels")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def test_a_mount_below_a_read_only_mount_fails_to_start_as_recorded(tmp_path: Path) -> None:
    recorded, recorded_events = case("pod-nested-mount-read-only"), case("events-nested-mount-read-only")
    async with replay_cluster(tmp_path) as replay:
        await replay.make_namespace("rec2-new")
        assert (await replay.kubectl.apply(nested(recorded))).rc == 0
        await until(lambda: "waiting" in status(replay, "rec2-new", "sandbox-nested")["state"])
        await until(lambda: events(replay, "BackOff", "rec2-new"))
        assert normalize(parsed_stdout(await replay.run(recorded))) == normalize(recorded.stdout)
        listed = normalize(parsed_stdout(await replay.run(recorded_events)))
    expected = normalize(recorded_events.stdout)
    for event in (listed["items"][-1], expected["items"][-1]):
        assert event["reason"] == "BackOff"
        del event["count"]  # a kubelet repeats the event at each sync of the Pod
    assert listed == expected


async def test_a_start_error_with_restart_policy_never_fails_as_recorded(tmp_path: Path) -> None:
    recorded = case("pod-nested-mount-read-only-never")
    async with replay_cluster(tmp_path) as replay:
        await replay.make_namespace("rec2-new")
        assert (await replay.kubectl.apply(nested(recorded))).rc == 0
        await until(lambda: "terminated" in status(replay, "rec2-new", "sandbox-nestednever")["state"])
        assert normalize(parsed_stdout(await replay.run(recorded))) == normalize(recorded.stdout)


async def test_a_start_error_is_retried_with_back_off(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=50) as replay:
        await replay.kubectl.apply(nested_in(None, [], read_only=True))
        await until(lambda: status(replay)["restartCount"] == 3)
        assert "back-off 40s" in status(replay)["state"]["waiting"]["message"]


def nested_in(
    parent: dict[str, Any] | None, child: list[str], *, read_only: bool, sub_path: str = ""
) -> dict[str, Any]:
    """Return a Pod that mounts `parent` at /m and the path in `child` at /m/inner; each defaults to an emptyDir."""
    volumes = [parent or {"name": "p", "emptyDir": {}}, *(folder("c", path) for path in child)]
    volumes += [] if child else [{"name": "c", "emptyDir": {}}]
    outer = mount(volumes[0]["name"], "/m", **({"readOnly": True} if read_only else {}))
    if sub_path:
        outer["subPath"] = sub_path
    return pod(volumes=volumes, volumeMounts=[mount("c", "/m/inner"), outer])


# the volume at /m, the folder at /m/inner, whether /m is read-only, whether the container starts
NESTED: dict[str, tuple[dict[str, Any] | None, list[str], bool, bool]] = {
    "folder with the mount point": (folder("p", "/srv/a"), [], True, True),
    "folder that contains the mounted one": (folder("p", "/srv/a"), ["/srv/a/inner"], True, True),
    "folder without the mount point": (folder("p", "/srv/b"), ["/srv/a/inner"], True, False),
    "writable folder": (folder("p", "/srv/b"), [], False, True),
    "emptyDir": (None, [], True, False),
    "writable emptyDir": (None, [], False, True),
    "claim": (claim("p"), [], True, False),
    "writable claim": (claim("p"), [], False, True),
}


@pytest.mark.parametrize("name", NESTED)
async def test_a_container_starts_if_its_mount_point_exists_or_can_be_created(name: str, tmp_path: Path) -> None:
    parent, child, read_only, starts = NESTED[name]
    async with replay_cluster(tmp_path, speed=SPEED, node_folders=["/srv/a/inner", "/srv/b"]) as replay:
        await replay.kubectl.apply(nested_in(parent, child, read_only=read_only))
        assert await runs(replay) is starts
        if not starts:
            assert events(replay, "Failed")[0]["message"].endswith("/rootfs/m/inner: read-only file system")


async def test_sub_path_folders_of_a_claim_are_created_and_kept(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED, node_folders=[]) as replay:
        both = [
            mount("p", "/m", subPath="u", readOnly=True),
            mount("p", "/m/inner", subPath="u/inner"),
        ]
        assert (await replay.kubectl.apply(pod(volumes=[claim("p")], volumeMounts=both))).rc == 0
        assert await runs(replay)
        other = nested_in(claim("p"), [], read_only=True, sub_path="u")
        other["metadata"]["name"] = "y"
        assert (await replay.kubectl.apply(other)).rc == 0
        assert await runs(replay, "y")


async def test_without_declared_folders_every_folder_exists(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED) as replay:
        for name, parent in (("x", folder("p", "/srv/none")), ("y", claim("p"))):
            made = nested_in(parent, [], read_only=True)
            made["metadata"]["name"] = name
            assert (await replay.kubectl.apply(made)).rc == 0
            assert await runs(replay, name)


async def test_duplicate_names_in_a_create_are_rejected(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path) as replay:
        duplicates = pod(volumes=[{"name": "a", "emptyDir": {}}] * 2)
        duplicates["spec"]["containers"] *= 2
        refused = await replay.kubectl("create", "-f", "-", stdin=duplicates)
    assert 'spec.volumes[1].name: Duplicate value: "a"' in refused.stderr
    assert 'spec.containers[1].name: Duplicate value: "sandbox"' in refused.stderr


def with_init(made: dict[str, Any], *, restart_policy: str = "Always") -> dict[str, Any]:
    """Give the container's mounts to an init container instead, before which another one runs."""
    spec = made["spec"]
    init = {"image": "init:1", "volumeMounts": spec["containers"][0].pop("volumeMounts")}
    spec["initContainers"] = [{"name": "first", "image": "init:1"}, {"name": "init", **init}]
    spec["restartPolicy"] = restart_policy
    return made


def pod_status(replay: Replay) -> dict[str, Any]:
    found = replay.cluster.get("Pod", "default", "x")
    assert found is not None
    of_pod: dict[str, Any] = found["status"]
    return of_pod


async def test_an_init_container_below_a_read_only_mount_is_a_start_error_with_back_off(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=50) as replay:
        assert (await replay.kubectl.apply(with_init(nested_in(None, [], read_only=True)))).rc == 0
        await until(lambda: pod_status(replay).get("initContainerStatuses", [{}, {}])[1].get("restartCount") == 2)
        of_pod = pod_status(replay)
        first, init = of_pod["initContainerStatuses"]
        assert first["state"]["terminated"]["reason"] == "Completed"
        assert init["lastState"]["terminated"]["reason"] == "StartError"
        assert init["lastState"]["terminated"]["message"].endswith("/rootfs/m/inner: read-only file system")
        assert status(replay)["state"]["waiting"] == {"reason": "PodInitializing"}
        assert of_pod["phase"] == "Pending"
        (initialized,) = (one for one in of_pod["conditions"] if one["type"] == "Initialized")
        assert initialized["message"] == "containers with incomplete status: [init]"


async def test_an_init_container_that_can_not_start_and_must_not_restart_fails_its_pod(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED) as replay:
        made = with_init(nested_in(None, [], read_only=True), restart_policy="Never")
        assert (await replay.kubectl.apply(made)).rc == 0
        await until(lambda: pod_status(replay)["phase"] == "Failed")
        assert pod_status(replay)["initContainerStatuses"][1]["state"]["terminated"]["reason"] == "StartError"


async def test_init_containers_whose_mount_points_are_there_end_before_the_containers_start(tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, speed=SPEED) as replay:
        assert (await replay.kubectl.apply(with_init(nested_in(None, [], read_only=False)))).rc == 0
        assert await runs(replay)
        inits = pod_status(replay)["initContainerStatuses"]
        assert [one["state"]["terminated"]["reason"] for one in inits] == ["Completed", "Completed"]
        assert [one["ready"] for one in inits] == [True, True]
