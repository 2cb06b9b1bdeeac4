"""Raw lists and watches (`kubectl get --raw`): output and exit must match the record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from devcluster import Cluster
from devcluster.authorization import USER
from devcluster.tests.normalize import normalize
from tests.contract import kubectls
from tests.kubectl import SPEED, Kubectl, Result, pod
from tests.record import Case, case
from tests.waiting import until

PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}
PODS = "/api/v1/namespaces/rec3/pods"
READS = (
    *("raw-list-empty", "raw-list-one", "raw-list-from-cache", "raw-list-limit", "raw-list-after-restart"),
    *("raw-list-no-namespace", "raw-list-bad-selector", "raw-list-unknown-resource", "raw-list-forbidden"),
    *("raw-get-missing", "raw-watch-forbidden"),
)
INITIAL_STATE = ("raw-watch-initial-events", "raw-watch-without-version")
RAW = {*READS, *INITIAL_STATE, "raw-watch", "raw-watch-too-old", "raw-watch-api-killed"}
"""The cases that this module replays."""


@pytest.fixture(params=["newest", "old"])
async def kubectl(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Kubectl:
    binary = kubectls.new_kubectl() if request.param == "newest" else kubectls.old_kubectl()
    made = Kubectl(cluster.kubeconfig, tmp_path / "home", binary, tester=False)
    await make_rec3(cluster, made)
    return made


async def make_rec3(cluster: Cluster, kubectl: Kubectl) -> None:
    """Make the recorded namespace, and wait until it accepts Pods."""
    assert (await kubectl("create", "namespace", "rec3")).rc == 0
    await until(lambda: cluster.get("ServiceAccount", "rec3", "default"))


@pytest.fixture
async def fast_cluster(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Kubectl]]:
    async with Cluster(directory=tmp_path / "quick", speed=SPEED, watch_speed=SPEED) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        await make_rec3(cluster, kubectl)
        yield cluster, kubectl


def sandbox(name: str) -> dict[str, Any]:
    made = pod(name, "rec3")
    made["metadata"]["labels"]["app"] = "deer-flow-sandbox"
    return made


def shape(value: Any) -> Any:
    """Return the comparable part of a list or an event: kinds, keys and their order, without the objects' content."""
    if "items" in value:
        return [list(value), value["kind"], list(value["metadata"]), [[*item] for item in value["items"]]]
    if value.get("type") in ("BOOKMARK", "ERROR"):
        return json.dumps(normalize(value))
    known = value["object"]
    return [list(value), value["type"], list(known), known["kind"], known["metadata"]["name"]]


def parse_events(stdout: str) -> list[Any]:
    return [json.loads(line) for line in stdout.splitlines()]


async def start_watch(cluster: Cluster, kubectl: Kubectl, *argv: str) -> asyncio.subprocess.Process:
    """Start a watch, and return its process when the watch is open."""
    before = cluster.open_watches()
    process = await kubectl.start(*argv)
    await until(lambda: cluster.open_watches() > before)
    return process


async def wait_for_exit(process: asyncio.subprocess.Process) -> Result:
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, stdout.decode(), stderr.decode())


async def version_of(kubectl: Kubectl) -> str:
    return str((await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"])


def watch_path(**query: str) -> str:
    return "&".join([f"{PODS}?watch=1&allowWatchBookmarks=true", *(f"{key}={value}" for key, value in query.items())])


def args(recorded: Case, version: str = "") -> list[str]:
    """Return the recorded arguments, with a resource version of this cluster."""
    argv = list(recorded.argv[1:])
    recorded_version = parse_qs(urlsplit(argv[-1]).query).get("resourceVersion", [""])[0]
    if version:
        argv[-1] = argv[-1].replace(f"resourceVersion={recorded_version}", f"resourceVersion={version}")
    return argv


@pytest.mark.parametrize("name", READS)
async def test_a_recorded_raw_read_has_the_recorded_result(name: str, cluster: Cluster, kubectl: Kubectl) -> None:
    recorded = case(name)
    if name != "raw-list-empty":
        assert (await kubectl.apply(sandbox("raw-b"))).rc == 0
        await until(lambda: cluster.objects("Pod")[0].get("status", {}).get("phase") == "Running")
    argv = args(recorded)
    if "forbidden" in name:
        cluster.authorization.restrict("rec3")
        argv.remove("--as=nobody")  # a restricted user can't impersonate another
    result = await kubectl(*argv)
    assert (result.rc, result.stderr) == (recorded.returncode, recorded.stderr.replace("nobody", USER))
    if isinstance(recorded.stdout, dict):
        assert shape(result.json) == shape(recorded.stdout)
    else:
        assert result.stdout == recorded.stdout


async def test_a_recorded_watch_from_an_expired_version_sends_an_error_event(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    recorded = case("raw-watch-too-old")
    cluster.forget_changes("Pod")
    result = await kubectl(*args(recorded))
    assert (result.rc, result.stderr) == (recorded.returncode, recorded.stderr)
    assert normalize(parse_events(result.stdout)) == normalize(recorded.stdout)


@pytest.mark.parametrize("name", INITIAL_STATE)
async def test_a_recorded_watch_starts_with_the_state_and_a_bookmark(
    name: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    recorded = case(name)
    assert (await kubectl.apply(sandbox("raw-b"))).rc == 0
    cluster.put_pod_into("rec3", "raw-b", "ready")
    watch = await start_watch(cluster, kubectl, *args(recorded))
    cluster.end_watches()
    result = await wait_for_exit(watch)
    assert (result.rc, result.stderr) == (0, "")
    assert [shape(event) for event in parse_events(result.stdout)] == [shape(event) for event in recorded.stdout]


async def test_a_recorded_watch_ends_with_the_api_server(cluster: Cluster, kubectl: Kubectl) -> None:
    recorded = case("raw-watch-api-killed")
    watch = await start_watch(cluster, kubectl, *args(recorded, await version_of(kubectl)))
    cluster.faults.refuse()
    result = await wait_for_exit(watch)
    assert (result.rc, result.stderr, parse_events(result.stdout)) == (
        recorded.returncode,
        recorded.stderr,
        recorded.stdout,
    )


async def test_a_recorded_watch_shows_a_pods_whole_life(fast_cluster: tuple[Cluster, Kubectl]) -> None:
    cluster, kubectl = fast_cluster
    recorded = case("raw-watch")
    watch = await start_watch(cluster, kubectl, *args(recorded, await version_of(kubectl)))
    assert (await kubectl.apply(sandbox("raw-a"))).rc == 0
    assert (await kubectl("wait", "--for=condition=Ready", "pod/raw-a", "-n", "rec3", "--timeout=5s")).rc == 0
    assert (await kubectl("annotate", "pod/raw-a", "-n", "rec3", "x=y")).rc == 0
    assert (await kubectl("delete", "pod/raw-a", "-n", "rec3")).rc == 0
    assert (await kubectl.apply(sandbox("raw-b"))).rc == 0
    result = await wait_for_exit(watch)
    assert (result.rc, result.stderr) == (0, "")

    def steps(events: list[Any]) -> list[str]:
        # The number of updates between two states of a Pod depends on the kubelet.
        shapes = [json.dumps(shape(event)) for event in events]
        bookmarks = [one for one in shapes if "BOOKMARK" in one]
        return [one for one, _ in groupby(shapes) if one not in bookmarks] + bookmarks

    events = parse_events(result.stdout)
    assert steps(events) == steps(recorded.stdout)
    assert [event["type"] for event in events[-2:]] == ["BOOKMARK", "BOOKMARK"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)


async def test_bookmarks_are_sent_each_minute_and_shortly_before_the_end(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", watch_speed=100) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        for seconds, count in ((150, 3), (63, 2), (61, 1), (2, 0)):
            path = f"/api/v1/services?watch=1&resourceVersion=1&allowWatchBookmarks=true&timeoutSeconds={seconds}"
            result = await kubectl("get", "--raw", path)
            assert [event["type"] for event in parse_events(result.stdout)] == ["BOOKMARK"] * count, seconds
        silent = await kubectl(
            "get", "--raw", path.replace("timeoutSeconds=2", "timeoutSeconds=63").replace("true", "0")
        )
    assert (silent.rc, silent.stdout) == (0, "")


async def test_send_bookmarks_sends_one_now(cluster: Cluster, kubectl: Kubectl) -> None:
    watch = await start_watch(cluster, kubectl, "get", "--raw", watch_path(resourceVersion=await version_of(kubectl)))
    assert watch.stdout is not None
    assert (await kubectl.apply(pod("x", "rec3", **PARKED))).rc == 0
    cluster.send_bookmarks("Service")
    cluster.send_bookmarks("Pod")
    version = await version_of(kubectl)
    events = [json.loads(await watch.stdout.readline())]
    while events[-1]["type"] != "BOOKMARK":
        events.append(json.loads(await watch.stdout.readline()))
    assert events[0]["type"] == "ADDED"
    assert events[-1]["object"]["metadata"] == {"resourceVersion": version}
    cluster.end_watches()
    assert (await wait_for_exit(watch)).stdout == ""


async def test_initial_events_require_a_version_match_and_the_feature_gate(tmp_path: Path) -> None:
    match = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    gate = (
        "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate "
        "is enabled"
    )
    initial = "resourceVersionMatch=NotOlderThan&sendInitialEvents=true"
    for watch_list, query, message in (
        (True, "watch=1&sendInitialEvents=true", match),
        (False, f"watch=1&{initial}", gate),
        (False, "watch=1&sendInitialEvents=true", f"\n* {match}\n* {gate}"),
        (True, f"{initial}&resourceVersion=1", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
    ):
        async with Cluster(directory=tmp_path / "c", watch_list=watch_list) as cluster:
            kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
            result = await kubectl("get", "--raw", f"{PODS}?{query}")
        assert (result.rc, result.stdout) == (1, "")
        assert result.stderr == f'The ListOptions "" is invalid: {message}\n'


async def test_without_the_feature_gate_no_bookmark_follows_the_state(tmp_path: Path) -> None:
    for watch_list, types in ((False, ["ADDED"]), (True, ["ADDED", "BOOKMARK"])):
        async with Cluster(directory=tmp_path / "c", watch_list=watch_list) as cluster:
            kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
            await make_rec3(cluster, kubectl)
            assert (await kubectl.apply(pod("x", "rec3", **PARKED))).rc == 0
            result = await kubectl("get", "--raw", watch_path(timeoutSeconds="1"))
        assert [event["type"] for event in parse_events(result.stdout) if event["type"] != "MODIFIED"] == types
