"""Lists, selectors, pages and watches of devcluster, through kubectl or, for details that kubectl hides, plain HTTP."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster, once
from tests.kubectl import Kubectl, pod, service
from tests.waiting import until

PODS = "/api/v1/namespaces/default/pods"


async def apply_parked(kubectl: Kubectl, *names: str) -> None:
    """Make unschedulable Pods, which do not change."""
    made = await kubectl.apply(*(pod(name, nodeSelector={"park": "here"}) for name in names))
    assert made.rc == 0, made.stderr


def names(listed: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("sandbox-id=a", ["a"]),
        ("sandbox-id==a", ["a"]),
        ("sandbox-id!=a", ["b", "c"]),
        ("sandbox-id in (a, c)", ["a", "c"]),
        ("sandbox-id notin (a,c)", ["b"]),
        ("sandbox-id", ["a", "b", "c"]),
        ("!sandbox-id", []),
        ("sandbox-id,sandbox-id!=b", ["a", "c"]),
    ],
)
async def test_a_label_selector_returns_the_matching_pods(selector: str, expected: list[str], kubectl: Kubectl) -> None:
    await apply_parked(kubectl, "a", "b", "c")
    assert names((await kubectl("get", "pods", "-l", selector, "-o", "json")).json) == expected


async def test_a_field_selector_matches_names_and_rejects_other_fields(kubectl: Kubectl) -> None:
    await apply_parked(kubectl, "a", "b")
    found = await kubectl("get", "pods", "--field-selector", "metadata.name=b", "-o", "json")
    assert names(found.json) == ["b"]
    refused = await kubectl("get", "pods", "--field-selector", "spec.x=b", "-o", "json")
    assert refused.rc == 1
    assert "field label not supported: spec.x" in refused.stderr


async def test_a_long_list_is_paged(kubectl: Kubectl, session: aiohttp.ClientSession) -> None:
    await apply_parked(kubectl, "a", "b", "c", "d", "e")
    paged = await kubectl("get", "pods", "--chunk-size=2", "-o", "json")
    assert names(paged.json) == ["a", "b", "c", "d", "e"]
    async with session.get(PODS, params={"limit": "2"}) as response:
        first = await response.json()
    assert first["metadata"]["remainingItemCount"] == 3
    assert first["metadata"]["continue"]


async def test_a_watch_sends_each_change_and_ends_cleanly(cluster: Cluster, kubectl: Kubectl) -> None:
    await apply_parked(kubectl, "a")
    watch = await kubectl.start("get", "pods", "--watch", "--output-watch-events", "-o", "json", "-l", "sandbox-id=b")
    assert watch.stdout is not None
    await until(lambda: any(request.params.get("watch") == "true" for request in cluster.kmock.requests))
    await apply_parked(kubectl, "b")
    await kubectl("delete", "pod/b")
    seen = []
    while "DELETED" not in seen:
        event = json.loads(await watch.stdout.readline())
        assert event["object"]["metadata"]["name"] == "b"
        seen.append(event["type"])
    assert seen[0] == "ADDED"
    cluster.end_watches()
    assert await watch.wait() == 0


async def test_an_object_that_stops_matching_is_deleted_for_the_watch(
    kubectl: Kubectl, session: aiohttp.ClientSession
) -> None:
    await apply_parked(kubectl, "a")
    query = {"watch": "true", "labelSelector": "sandbox-id=a", "resourceVersion": "0"}
    async with session.get(PODS, params=query) as response:
        added = json.loads(await response.content.readline())
        assert added["type"] == "ADDED"
        await kubectl("label", "pod/a", "sandbox-id=other", "--overwrite")
        types = {json.loads(await response.content.readline())["type"]}
        assert types <= {"DELETED", "MODIFIED"}
        while "DELETED" not in types:
            types.add(json.loads(await response.content.readline())["type"])


async def test_a_watch_resumes_from_a_version_until_it_is_expired(
    cluster: Cluster, kubectl: Kubectl, session: aiohttp.ClientSession
) -> None:
    await apply_parked(kubectl, "a")
    async with session.get(PODS) as response:
        version = (await response.json())["metadata"]["resourceVersion"]
    await apply_parked(kubectl, "b")
    query = {"watch": "true", "resourceVersion": version}
    async with session.get(PODS, params=query) as response:
        event = json.loads(await response.content.readline())
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")
    cluster.forget_changes("Pod")
    async with session.get(PODS, params=query) as response:
        assert response.status == 200
        event = json.loads(await response.content.readline())
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await response.content.read() == b""


async def test_a_watch_ends_after_its_timeout(session: aiohttp.ClientSession) -> None:
    async with session.get(PODS, params={"watch": "true", "timeoutSeconds": "1"}) as response:
        assert await response.content.read() == b""


async def test_a_watch_with_initial_events_sends_a_bookmark_after_them(
    kubectl: Kubectl, session: aiohttp.ClientSession
) -> None:
    await apply_parked(kubectl, "a")
    query = {"watch": "true", "sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    async with session.get(PODS, params={**query, "resourceVersionMatch": "NotOlderThan"}) as response:
        assert json.loads(await response.content.readline())["type"] == "ADDED"
        bookmark = json.loads(await response.content.readline())
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_canned_response_is_given_once(cluster: Cluster, kubectl: Kubectl) -> None:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403}
    services = cluster.kmock.resource("", "v1", "services")
    cluster.kmock["list", services] << 403 << once({**status, "message": "not today"})
    refused = await kubectl("get", "services", "-o", "json")
    assert refused.stderr == "Error from server (Forbidden): not today\n"
    assert (await kubectl("get", "services", "-o", "json")).rc == 0
    assert (await kubectl.apply(service())).rc == 0


async def test_only_the_last_1000_requests_are_kept(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    for _ in range(1100):
        async with session.get("/readyz") as response:
            assert response.status == 200
    assert len(cluster.kmock.requests) == 1000


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("/api", "APIVersions"), ("/apis", "APIGroupList"), ("/api/v1", "APIResourceList")),
        *(("/apis/networking.k8s.io", "APIGroup"), ("/apis/networking.k8s.io/v1", "APIResourceList")),
    ],
)
async def test_unaggregated_discovery_is_served_to_an_older_kubectl(
    path: str, kind: str, session: aiohttp.ClientSession
) -> None:
    async with session.get(path, headers={"Accept": "application/json"}) as response:
        answer = await response.json()
    assert answer["kind"] == kind
    if kind == "APIResourceList":
        assert answer["groupVersion"] == path.removeprefix("/apis/").removeprefix("/api/")


async def test_aggregated_discovery_comes_in_the_requested_version(session: aiohttp.ClientSession) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    async with session.get("/apis", headers={"Accept": accept}) as response:
        assert response.headers["Content-Type"] == accept.partition(",")[0]
        assert (await response.json())["apiVersion"] == "apidiscovery.k8s.io/v2beta1"


async def test_an_unserved_resource_is_not_found_in_json(session: aiohttp.ClientSession) -> None:
    async with session.get("/apis/apps/v1/deployments") as response:
        assert (response.status, (await response.json())["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("PATCH", f"{PODS}/x?fieldManager=p", body) for body in ('{"metadata":[]}', "[]", "nonsense: [")),
        *(
            ("GET", f"{PODS}?{query}", None)
            for query in ("labelSelector=a%20in", "limit=x", "continue=%25", "watch=1&resourceVersion=x")
        ),
        ("POST", PODS, "{}"),
        ("POST", PODS, '{"metadata":{"name":"x"},"spec":{"containers":[5]}}'),
    ],
)
async def test_a_malformed_request_gets_a_4xx_status(
    method: str, path: str, body: str | None, session: aiohttp.ClientSession
) -> None:
    headers = {"Content-Type": "application/apply-patch+yaml"} if method == "PATCH" else {}
    async with session.request(method, path, headers=headers, data=body) as response:
        answer = await response.json()
    assert 400 <= response.status < 500, answer
    assert answer["kind"] == "Status"
