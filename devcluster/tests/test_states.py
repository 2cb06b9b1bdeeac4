"""Pods that a test puts into recorded states: get, logs, events and a watch must show them as recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.tests.normalize import normalize, parsed_stdout
from devcluster.tests.pod_states import POD_STATES, PREPARED, UNCHANGING, put_into
from devcluster.tests.replay import Replay, namespace_rec, replay_cluster
from tests.kubectl import Kubectl, pod
from tests.record import RECORDED, case, watch_events
from tests.waiting import until


@pytest.mark.parametrize("name", POD_STATES)
async def test_a_pod_in_a_recorded_state_looks_as_recorded(name: str, tmp_path: Path) -> None:
    sandbox, *states = POD_STATES[name]
    async with replay_cluster(tmp_path, **UNCHANGING) as replay:
        await put_into(replay, sandbox, *states)
        await assert_replayed(replay, name)


async def assert_replayed(replay: Replay, name: str) -> None:
    recorded = case(name)
    result = await replay.run(recorded)
    assert normalize(result.stderr) == normalize(recorded.stderr)
    assert result.rc == recorded.returncode
    assert normalize(parsed_stdout(result)) == normalize(recorded.stdout)


@pytest.mark.parametrize("name", PREPARED)
async def test_a_prepared_cluster_looks_as_recorded(name: str, tmp_path: Path) -> None:
    async with replay_cluster(tmp_path, **UNCHANGING) as replay:
        await PREPARED[name](replay)
        await assert_replayed(replay, name)


async def test_a_pod_without_its_service_looks_as_recorded(tmp_path: Path) -> None:
    recorded = case("pod-left-without-service")
    async with replay_cluster(tmp_path) as replay:
        await replay.make_namespace("np")
        made = await replay.kubectl.apply(case("apply-nodeports-exhausted").stdin["items"][0])
        assert made.rc == 0, made.stderr
        listed = (await replay.run(recorded)).json
    del listed["items"][0]["status"]["conditions"]  # the recorded scheduler had not seen the Pod yet
    assert normalize(listed) == normalize(recorded.stdout)


async def test_logs_of_a_missing_pod_are_rejected_as_recorded(tmp_path: Path) -> None:
    recorded = json.loads((RECORDED / "http" / "logs-missing.json").read_text(encoding="utf-8"))
    async with replay_cluster(tmp_path) as replay:
        await replay.make_namespace("rechttp")
        result = await replay.kubectl(*recorded["argv"][1:])
    assert (result.rc, result.stderr, result.stdout) == (recorded["rc"], recorded["stderr"], "")


# By Pod of the recorded watch: its sandbox, and the states that it went through.
WATCHED: dict[str, tuple[str, ...]] = {
    "sandbox-ready": ("ready", "running-unready", "ready"),
    "sandbox-unready": ("unready", "running-unready"),
    "sandbox-nopull": ("nopull", "image-pull-backoff", *("err-image-pull", "image-pull-backoff", "err-image-pull")),
    "sandbox-crash": ("crash", "crash-loop", "crashed"),
    "sandbox-done": ("done", "succeeded"),
    "sandbox-fail": ("fail", "failed"),
    "sandbox-oom": ("oom", "out-of-memory", "crash-loop", "out-of-memory"),
    "sandbox-mount": ("mount", "failed-mount"),
    "sandbox-slow": ("slow", "ready", "terminating"),
}
# The annotation that the recorded `annotate` set; its events are left out.
ANNOTATED = "provisioner/expires-at"


def shapes(events: list[dict[str, Any]]) -> list[Any]:
    """Normalize the events of one Pod, and drop those that only change a number or a time."""
    found: list[Any] = []
    for event in events:
        obj = event["object"]
        if ANNOTATED in (obj["metadata"].get("annotations") or {}):
            continue
        obj["metadata"].pop("managedFields", None)
        shape = {"type": event["type"], "object": normalize(obj)}
        for condition in shape["object"]["status"].get("conditions") or ():
            condition.pop("lastTransitionTime", None)
        if not found or shape != found[-1]:
            found.append(shape)
    return found


@pytest.mark.parametrize("name", WATCHED)
async def test_a_watch_shows_the_recorded_sequence(name: str, tmp_path: Path) -> None:
    sandbox, *states = WATCHED[name]
    expected = shapes([event for event in watch_events() if event["object"]["metadata"]["name"] == name])
    begun = 1 if name == "sandbox-ready" else 0  # the Pod had a node already when the recorded watch started
    async with replay_cluster(tmp_path, speed=10, **UNCHANGING) as replay:
        await namespace_rec(replay)
        watch = await replay.kubectl.start(
            *("get", "pods", "-n", "rec", "--watch", "--output-watch-events", "-o", "json", "--chunk-size=0")
        )
        assert watch.stdout is not None
        await until(lambda: any(asked.params.get("watch") == "true" for asked in replay.cluster.kmock.requests))
        await replay.apply_case(f"apply-real-{sandbox}")
        replay.cluster.put_pod_into("rec", name, *states)
        seen: list[dict[str, Any]] = []
        while len(shapes(seen)) < begun + len(expected):
            seen.append(json.loads(await watch.stdout.readline()))
        watch.kill()
        await watch.communicate()
    assert shapes(seen)[begun + 1 :] == expected[1:]
    assert begun or shapes(seen)[0] == expected[0]


async def test_a_running_pod_can_be_made_unschedulable(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "ready", "unschedulable")
    shown = (await kubectl("get", "pod/x", "-o", "json")).json
    assert "nodeName" not in shown["spec"]
    recorded = case("pod-unschedulable").stdout["status"]
    assert normalize(shown["status"]) == normalize(recorded)
    deleted = await kubectl("delete", "pod/x", "--timeout=5s")
    assert deleted.rc == 0, deleted.stderr


async def test_a_pod_put_into_a_state_can_still_be_deleted(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "crash-loop")
    deleted = await kubectl("delete", "pod/x", "--timeout=5s")
    assert deleted.rc == 0, deleted.stderr


async def test_logs_obey_tail_limit_container_and_previous(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "ready")
    assert (await kubectl("logs", "x")).stdout == "devcluster, a stand-in for development: no container runs here\n"
    cluster.set_log("default", "x", "one\ntwo\nthree\n")
    assert (await kubectl("logs", "x", "--tail=2")).stdout == "two\nthree\n"
    assert (await kubectl("logs", "x", "--tail=2", "--limit-bytes=5")).stdout == "two\nt"
    assert (await kubectl("logs", "x", "-c", "other")).rc == 1
    missing = await kubectl("logs", "x", "--previous")
    assert "BadRequest" in missing.stderr
    assert 'previous terminated container "sandbox" in pod "x" not found' in missing.stderr
    cluster.put_pod_into("default", "x", "crashed")
    assert (await kubectl("logs", "x", "--previous")).rc == 1  # exists only after a restart
    cluster.put_pod_into("default", "x", "ready")
    assert (await kubectl("logs", "x", "--previous", "--limit-bytes=3")).stdout == "one"


async def test_events_are_selected_by_the_pods_uid(kubectl: Kubectl) -> None:
    async def reasons(uid: str) -> list[str]:
        about = f"involvedObject.name=x,involvedObject.uid={uid}"
        listed = await kubectl("get", "events", "--field-selector", about, "-o", "json")
        return [event["reason"] for event in listed.json["items"]]

    first = (await kubectl.apply(pod())).json["metadata"]["uid"]
    assert (await kubectl("delete", "pod/x", "--timeout=5s")).rc == 0
    second = (await kubectl.apply(pod(nodeSelector={"no": "such"}))).json["metadata"]["uid"]
    assert (await reasons(first))[0] == "Scheduled"
    assert await reasons(second) == ["FailedScheduling"]
    assert await reasons("another") == []


async def test_an_evicted_pod_is_failed_with_its_reason(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "ready", "evicted")
    status = (await kubectl("get", "pod/x", "-o", "json")).json["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"].startswith("The node was low on resource: memory. ")
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "PodReadyToStartContainers": "False",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
        "DisruptionTarget": "True",
    }


def test_putting_a_missing_pod_into_a_state_raises_key_error(cluster: Cluster) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        cluster.put_pod_into("default", "nowhere", "ready")
