"""Injected failures of open watches and paged lists, as `kubectl get --raw` reports them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from devcluster.store import LOG_LENGTH
from devcluster.tests.test_raw import parse_events, start_watch, wait_for_exit
from tests.kubectl import Kubectl, pod, service

PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}
PODS = "/api/v1/namespaces/default/pods"
WATCH = f"{PODS}?watch=1&allowWatchBookmarks=true"
SERVICES = "/api/v1/namespaces/default/services?watch=1"


async def version_of(kubectl: Kubectl) -> str:
    return str((await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"])


async def silent(process: asyncio.subprocess.Process) -> bool:
    """Return whether a watch sends nothing and stays open for 0.5 s, the time of several kubectl calls."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(0.5):
            await process.stdout.readline()
    except TimeoutError:
        return process.returncode is None
    return False


async def test_a_silent_watch_sends_all_events_when_it_is_released(cluster: Cluster, kubectl: Kubectl) -> None:
    pods = await start_watch(cluster, kubectl, "get", "--raw", f"{WATCH}&resourceVersion={await version_of(kubectl)}")
    services = await start_watch(cluster, kubectl, "get", "--raw", SERVICES)
    assert services.stdout is not None
    cluster.faults.silence_watches("pods")
    assert (await kubectl.apply(pod("a", **PARKED), pod("b", **PARKED), service("a"))).rc == 0
    assert json.loads(await services.stdout.readline())["object"]["metadata"]["name"] == "a-svc"
    cluster.send_bookmarks()
    cluster.end_watches()
    assert await silent(pods)
    cluster.faults.release_watches("pods")
    result = await wait_for_exit(pods)
    events = [event for event in parse_events(result.stdout) if event["type"] != "MODIFIED"]
    assert result.rc == 0
    assert [event["type"] for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
    await wait_for_exit(services)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_only_watches_of_the_given_resource_are_cut(is_silent: bool, cluster: Cluster, kubectl: Kubectl) -> None:
    pods = await start_watch(cluster, kubectl, "get", "--raw", WATCH)
    services = await start_watch(cluster, kubectl, "get", "--raw", SERVICES)
    if is_silent:
        cluster.faults.silence_watches()
    cluster.faults.cut_watches("pods")
    result = await wait_for_exit(pods)
    assert (result.rc, result.stderr) == (1, "error: unexpected EOF\n")
    assert cluster.open_watches("Service") == 1
    cluster.faults.clear()
    cluster.end_watches()
    assert (await wait_for_exit(services)).rc == 0


async def test_an_expired_watch_sends_410_and_its_version_is_expired(cluster: Cluster, kubectl: Kubectl) -> None:
    version = await version_of(kubectl)
    path = f"{WATCH}&resourceVersion={version}"
    watch = await start_watch(cluster, kubectl, "get", "--raw", path)
    assert (await kubectl.apply(pod("a", **PARKED))).rc == 0
    cluster.faults.expire_watches("pods")
    result = await wait_for_exit(watch)
    last = parse_events(result.stdout)[-1]
    assert result.rc == 0
    assert (last["type"], last["object"]["reason"], last["object"]["code"]) == ("ERROR", "Expired", 410)
    (again,) = parse_events((await kubectl("get", "--raw", path)).stdout)
    assert again["object"]["message"].startswith(f"too old resource version: {version} (")
    fresh = await kubectl("get", "--raw", f"{WATCH}&timeoutSeconds=1&resourceVersion={await version_of(kubectl)}")
    assert (fresh.rc, fresh.stdout) == (0, "")


async def test_a_failed_watch_ends_with_an_error_event_and_can_be_resumed(cluster: Cluster, kubectl: Kubectl) -> None:
    version = await version_of(kubectl)
    watch = await start_watch(cluster, kubectl, "get", "--raw", f"{WATCH}&resourceVersion={version}")
    cluster.faults.fail_watches()
    result = await wait_for_exit(watch)
    (event,) = parse_events(result.stdout)
    assert (result.rc, event["type"], event["object"]["reason"]) == (0, "ERROR", "InternalError")
    again = await kubectl("get", "--raw", f"{WATCH}&resourceVersion={version}&timeoutSeconds=1")
    assert (again.rc, again.stdout) == (0, "")


@pytest.mark.parametrize(
    ("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")]
)
async def test_kubectl_reports_a_rejected_watch(code: int, reason: str, cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.faults.answer(code, verb="watch")
    result = await kubectl("get", "--raw", WATCH)
    assert (result.rc, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error from server ({reason}): ")
    assert (await kubectl("get", "--raw", PODS)).rc == 0


@pytest.mark.parametrize("open_watches", [False, True])
async def test_a_hanging_server_holds_open_watches_only_on_request(
    open_watches: bool, cluster: Cluster, kubectl: Kubectl
) -> None:
    watch = await start_watch(cluster, kubectl, "get", "--raw", WATCH)
    assert watch.stdout is not None
    assert json.loads(await watch.stdout.readline())["type"] == "BOOKMARK"
    cluster.faults.hang(open_watches=open_watches)
    cluster.send_bookmarks()
    assert await silent(watch) is open_watches
    call = asyncio.create_task(kubectl("get", "--raw", PODS))
    assert await silent(watch)
    assert not call.done()
    cluster.faults.clear()
    assert (await call).rc == 1  # `clear` drops hanging requests
    cluster.end_watches()
    assert len(parse_events((await wait_for_exit(watch)).stdout)) == int(open_watches)


async def test_a_cluster_with_silent_watches_still_stops(cluster: Cluster, kubectl: Kubectl) -> None:
    watch = await start_watch(cluster, kubectl, "get", "--raw", WATCH)
    cluster.faults.silence_watches()
    async with asyncio.timeout(60):
        await cluster.__aexit__(None, None, None)
    assert (await wait_for_exit(watch)).rc == 0


async def test_a_watch_from_any_version_sends_each_later_write_once(cluster: Cluster, kubectl: Kubectl) -> None:
    """Some of the writes precede the watches, and some happen while they start."""
    start = int(await version_of(kubectl))

    async def write(numbers: range) -> None:
        objects = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n:03}"}} for n in numbers]
        for obj in objects:
            obj["metadata"]["namespace"] = "default"  # type: ignore[index]
        assert (await kubectl.apply(*objects)).rc == 0

    await write(range(150))
    path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={}"
    versions = [start, start + 1, start + 75, start + 150]
    writing = asyncio.create_task(write(range(150, 300)))
    watches = [await kubectl.start("get", "--raw", path.format(version)) for version in versions]
    await writing
    everything = cluster.objects("ConfigMap", "default")
    for version, watch in zip(versions, watches, strict=True):
        expected = sorted(
            int(obj["metadata"]["resourceVersion"])
            for obj in everything
            if int(obj["metadata"]["resourceVersion"]) > version
        )
        assert watch.stdout is not None
        found = [json.loads(await watch.stdout.readline())["object"]["metadata"] for _ in expected]
        assert ",".join(meta["resourceVersion"] for meta in found) == ",".join(map(str, expected))
    cluster.end_watches()
    for watch in watches:
        assert (await wait_for_exit(watch)).stdout == ""


async def test_a_watch_can_start_at_the_oldest_kept_version_but_no_earlier(cluster: Cluster, kubectl: Kubectl) -> None:
    made = await kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    first = int(made.json["metadata"]["resourceVersion"])
    await many_writes(cluster, LOG_LENGTH)
    path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion={}"
    events = parse_events((await kubectl("get", "--raw", path.format(first))).stdout)
    assert [event["type"] for event in events] == ["MODIFIED"] * LOG_LENGTH
    (event,) = parse_events((await kubectl("get", "--raw", path.format(first - 1))).stdout)
    assert event["object"]["message"] == f"too old resource version: {first - 1} ({first})"


def authorized(cluster: Cluster) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {cluster.token}"})


async def many_writes(cluster: Cluster, count: int) -> None:
    """Update a ConfigMap `count` times without kubectl, which would take minutes."""
    path = f"{cluster.url}/api/v1/namespaces/default/configmaps/c"
    headers = {"Content-Type": "application/merge-patch+json"}
    async with authorized(cluster) as session:
        for number in range(count):
            body = json.dumps({"data": {"n": str(number)}})
            async with session.patch(path, data=body, headers=headers, ssl=False) as response:
                assert response.status == 200


async def test_pages_of_one_list_show_one_version_until_it_expires(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl.apply(*(pod(name, **PARKED) for name in "abcde"))).rc == 0
    first = (await kubectl("get", "--raw", f"{PODS}?limit=2")).json
    assert (await kubectl("delete", "pod/d")).rc == 0
    assert (await kubectl("label", "pod/c", "x=y")).rc == 0
    assert (await kubectl.apply(pod("bb", **PARKED))).rc == 0
    path = f"{PODS}?limit=2&continue={first['metadata']['continue']}"
    second = (await kubectl("get", "--raw", path)).json
    assert [item["metadata"]["name"] for item in second["items"]] == ["c", "d"]
    assert "x" not in second["items"][0]["metadata"]["labels"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["remainingItemCount"] == 1
    exact = f"{PODS}?resourceVersionMatch=Exact&resourceVersion={first['metadata']['resourceVersion']}"
    assert [one["metadata"]["name"] for one in (await kubectl("get", "--raw", exact)).json["items"]] == [*"abcde"]
    cluster.forget_changes("Pod")
    for old in (path, exact):
        expired = await kubectl("get", "--raw", old)
        assert (expired.rc, expired.stdout) == (1, "")
        assert expired.stderr.startswith("Error from server (Expired): The ")


async def test_an_expired_page_can_be_continued_at_a_newer_version(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl.apply(*(pod(name, **PARKED) for name in "abc"))).rc == 0
    first = (await kubectl("get", "--raw", f"{PODS}?limit=1")).json
    assert (await kubectl.apply(pod("bb", **PARKED))).rc == 0
    cluster.forget_changes("Pod")
    # kubectl does not print the token for that, which is in the error's metadata.
    path = f"{cluster.url}{PODS}?continue={first['metadata']['continue']}"
    async with authorized(cluster) as session, session.get(path, ssl=False) as response:
        assert response.status == 410
        token = (await response.json())["metadata"]["continue"]
    rest = (await kubectl("get", "--raw", f"{PODS}?continue={token}")).json
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b", "bb", "c"]
