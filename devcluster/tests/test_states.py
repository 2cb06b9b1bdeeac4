"""The recorded states of Pods, put on by a test: get, logs, events and a watch show of them what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.tests.levels import level, printed
from devcluster.tests.pod_states import ARRANGED, SEEN, UNTOUCHED, put
from devcluster.tests.stages import Stage, rec, staged
from tests.kubectl import Kubectl, pod
from tests.record import RECORDED, case, watch_events
from tests.waiting import until


@pytest.mark.parametrize("name", SEEN)
async def test_a_pod_that_is_put_into_a_recorded_state_looks_as_it_did(name: str, tmp_path: Path) -> None:
    sandbox, *states = SEEN[name]
    async with staged(tmp_path, **UNTOUCHED) as stage:
        await put(stage, sandbox, *states)
        await ends_as_recorded(stage, name)


async def ends_as_recorded(stage: Stage, name: str) -> None:
    recorded = case(name)
    result = await stage.play(recorded)
    assert level(result.stderr) == level(recorded.stderr)
    assert result.rc == recorded.returncode
    assert level(printed(result)) == level(recorded.stdout)


@pytest.mark.parametrize("name", ARRANGED)
async def test_what_was_recorded_of_several_is_seen_again(name: str, tmp_path: Path) -> None:
    async with staged(tmp_path, **UNTOUCHED) as stage:
        await ARRANGED[name](stage)
        await ends_as_recorded(stage, name)


async def test_a_pod_that_is_left_without_its_service_looks_as_it_did(tmp_path: Path) -> None:
    recorded = case("pod-left-without-service")
    async with staged(tmp_path) as stage:
        await stage.namespace("np")
        made = await stage.kubectl.apply(case("apply-nodeports-exhausted").stdin["items"][0])
        assert made.rc == 0, made.stderr
        listed = (await stage.play(recorded)).json
    del listed["items"][0]["status"]["conditions"]  # the recorded scheduler had not looked yet
    assert level(listed) == level(recorded.stdout)


async def test_logs_of_a_pod_that_is_not_there_are_refused_as_recorded(tmp_path: Path) -> None:
    recorded = json.loads((RECORDED / "http" / "logs-missing.json").read_text(encoding="utf-8"))
    async with staged(tmp_path) as stage:
        await stage.namespace("rechttp")
        result = await stage.kubectl(*recorded["argv"][1:])
    assert (result.rc, result.stderr, result.stdout) == (recorded["rc"], recorded["stderr"], "")


# The watch: what each Pod of the recorded stream went through, and what a test does for that.
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
# Changes of the stream that no test put on: the annotation is `annotate`'s.
ANNOTATED = "provisioner/expires-at"


def shapes(events: list[dict[str, Any]]) -> list[Any]:
    """Level the events of one Pod, and leave out those that show nothing new but a number or a time."""
    found: list[Any] = []
    for event in events:
        obj = event["object"]
        if ANNOTATED in (obj["metadata"].get("annotations") or {}):
            continue
        obj["metadata"].pop("managedFields", None)
        shape = {"type": event["type"], "object": level(obj)}
        for condition in shape["object"]["status"].get("conditions") or ():
            condition.pop("lastTransitionTime", None)
        if not found or shape != found[-1]:
            found.append(shape)
    return found


@pytest.mark.parametrize("name", WATCHED)
async def test_a_watch_shows_the_same_sequence_as_the_recorded_one(name: str, tmp_path: Path) -> None:
    sandbox, *states = WATCHED[name]
    expected = shapes([event for event in watch_events() if event["object"]["metadata"]["name"] == name])
    begun = 1 if name == "sandbox-ready" else 0  # it had the node already when the recorded watch first saw it
    async with staged(tmp_path, speed=10, **UNTOUCHED) as stage:
        await rec(stage)
        watch = await stage.kubectl.start(
            *("get", "pods", "-n", "rec", "--watch", "--output-watch-events", "-o", "json", "--chunk-size=0")
        )
        assert watch.stdout is not None
        await until(lambda: any(asked.params.get("watch") == "true" for asked in stage.cluster.kmock.requests))
        await stage.applied(f"apply-real-{sandbox}")
        stage.cluster.put_pod_into("rec", name, *states)
        seen: list[dict[str, Any]] = []
        while len(shapes(seen)) < begun + len(expected):
            seen.append(json.loads(await watch.stdout.readline()))
        watch.kill()
        await watch.communicate()
    assert shapes(seen)[begun + 1 :] == expected[1:]
    assert begun or shapes(seen)[0] == expected[0]


async def test_a_pod_can_be_taken_off_the_node_as_if_none_had_been_right(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "ready", "unschedulable")
    shown = (await kubectl("get", "pod/x", "-o", "json")).json
    assert "nodeName" not in shown["spec"]
    recorded = case("pod-unschedulable").stdout["status"]
    assert level(shown["status"]) == level(recorded)
    deleted = await kubectl("delete", "pod/x", "--timeout=5s")
    assert deleted.rc == 0, deleted.stderr


async def test_a_pod_in_a_state_can_still_be_deleted(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    cluster.put_pod_into("default", "x", "crash-loop")
    deleted = await kubectl("delete", "pod/x", "--timeout=5s")
    assert deleted.rc == 0, deleted.stderr


async def test_logs_have_a_tail_and_a_container(cluster: Cluster, kubectl: Kubectl) -> None:
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
    assert (await kubectl("logs", "x", "--previous")).rc == 1  # there is one only from the restart on
    cluster.put_pod_into("default", "x", "ready")
    assert (await kubectl("logs", "x", "--previous", "--limit-bytes=3")).stdout == "one"


async def test_events_are_those_of_the_very_pod(kubectl: Kubectl) -> None:
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


async def test_a_pod_that_its_node_evicts_is_failed_and_says_why(cluster: Cluster, kubectl: Kubectl) -> None:
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


def test_an_unknown_state_and_a_pod_that_is_not_there_are_key_errors(cluster: Cluster) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        cluster.put_pod_into("default", "nowhere", "ready")
