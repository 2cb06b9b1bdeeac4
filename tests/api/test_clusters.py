"""GET /api/clusters of a service with one cluster: state, version, sandboxes and capacity, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandboxes.api.app_keys import CLUSTERS
from sandboxes.models.clusters import ClusterList
from sandboxes.ops.rights import REVIEW
from tests.api.conftest import Client, MakeClient
from tests.fakes import FakeCluster

PROBE = ("get", "--raw", "/readyz")
VERSION = ("get", "--raw", "/version")
QUOTAS = ("get", "--raw", "/api/v1/namespaces/deer-flow/resourcequotas?limit=1000")

DEFAULT: dict[str, Any] = {
    "name": "default",
    "access": "node-port",
    "state": "ready",
    "version": "v1.36.2",
    "sandboxes": None,
    "capacity": {"max_sandboxes": None, "quota": {}},
    "last_error": None,
}

# Answers only when the look at the cluster has ended, on a busy machine, too.
patient = pytest.mark.deadlines(clusters_answer=60.0, ready=30.0)
# Does not wait for the look.
hasty = pytest.mark.deadlines(clusters_answer=0.001, ready=30.0)
# Disables the cache of readiness.
uncached = pytest.mark.deadlines(ready_believed=-1.0)


async def cluster_of(client: Client) -> dict[str, Any]:
    response = await client.get("/api/clusters")
    assert response.status == 200
    answer = await response.json()
    ClusterList.model_validate(answer, strict=True)
    assert answer["count"] == 1
    one: dict[str, Any] = answer["clusters"][0]
    return one


@patient
async def test_a_service_with_one_cluster_lists_it_as_default(client: Client) -> None:
    assert await cluster_of(client) == DEFAULT


@patient
async def test_the_version_and_the_quotas_are_asked_for_once(client: Client, cluster: FakeCluster) -> None:
    for _ in range(3):
        await cluster_of(client)
    assert cluster.calls == [PROBE, REVIEW, VERSION, QUOTAS]


@patient
@pytest.mark.deadlines(version_retry=0.001, ready_believed=-1.0)
async def test_a_version_that_cannot_be_read_is_null_and_asked_for_again(client: Client, cluster: FakeCluster) -> None:
    cluster.print_next("get", b"ok")
    cluster.print_next("get", b"no version")
    one = await cluster_of(client)
    assert (one["state"], one["version"]) == ("ready", None)
    while (await cluster_of(client))["version"] is None:
        await asyncio.sleep(0.001)


@patient
async def test_the_limit_of_sandboxes_is_its_capacity(make_client: MakeClient) -> None:
    one = await cluster_of(await make_client(MAX_SANDBOXES="7"))
    assert one["capacity"] == {"max_sandboxes": 7, "quota": {}}


@patient
@uncached
async def test_an_unreachable_cluster_says_why_until_it_is_back(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("get", "refused")
    one = await cluster_of(client)
    assert (one["state"], one["last_error"]) == ("unreachable", "The cluster can't be reached")
    # The next look is not awaited, and finds it back.
    await cluster_of(client)
    while (one := await cluster_of(client))["state"] != "ready":
        await asyncio.sleep(0.001)
    assert one == DEFAULT


@patient
async def test_a_cluster_without_the_rights_is_degraded(client: Client, cluster: FakeCluster) -> None:
    cluster.review["status"].update(resourceRules=[], nonResourceRules=[])
    one = await cluster_of(client)
    assert one["state"] == "degraded"
    assert one["last_error"].startswith("The provisioner lacks rights that a create needs: ")


@hasty
async def test_a_cluster_that_hangs_delays_no_answer(client: Client, cluster: FakeCluster) -> None:
    answers = cluster.hold_next("get")
    for _ in range(2):
        one = await asyncio.wait_for(cluster_of(client), 20)
        assert (one["state"], one["version"]) == ("degraded", None)
        assert one["last_error"] == "The cluster does not answer at the moment"
    assert cluster.calls == [PROBE]
    answers.set()
    while (one := await cluster_of(client))["state"] != "ready" or one["version"] is None:
        await asyncio.sleep(0.001)
    assert one == DEFAULT


@patient
async def test_a_cluster_of_weight_0_is_draining(client: Client) -> None:
    client.app[CLUSTERS].by_name["default"].weight = 0
    one = await cluster_of(client)
    assert (one["state"], one["last_error"]) == ("draining", None)


@patient
async def test_a_cluster_without_a_service_is_listed_with_the_reason(client: Client) -> None:
    client.app[CLUSTERS].unusable["west"] = "Kubeconfig /west can't be read."
    answer = await (await client.get("/api/clusters")).json()
    assert [one["name"] for one in answer["clusters"]] == ["default", "west"]
    west = answer["clusters"][1]
    assert (west["state"], west["last_error"]) == ("unreachable", "Kubeconfig /west can't be read.")


async def test_the_clusters_need_a_key(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    assert (await client.get("/api/clusters")).status == 401
    assert cluster.calls == []
    assert (await client.get("/api/clusters", headers={"X-API-Key": "k3y"})).status == 200


def quota(name: str, hard: dict[str, str], used: dict[str, str], **spec: Any) -> dict[str, Any]:
    """Return a ResourceQuota as an API server stores it."""
    metadata = {"name": name, "namespace": "deer-flow", "uid": f"uid-{name}", "resourceVersion": "1"}
    spec, status = {"hard": hard, **spec}, {"hard": hard, "used": used}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec, "status": status}


async def quota_of(client: Client) -> dict[str, str] | None:
    left: dict[str, str] | None = (await cluster_of(client))["capacity"]["quota"]
    return left


@patient
async def test_what_is_left_of_the_quotas_is_said_the_least_of_each(client: Client, cluster: FakeCluster) -> None:
    cluster.put(quota("a", {"pods": "10", "requests.cpu": "4", "limits.memory": "8Gi"}, {
        "pods": "3", "requests.cpu": "2500m", "limits.memory": "9Gi",
    }))  # fmt: skip
    cluster.put(quota("b", {"pods": "5", "services": "9"}, {"pods": "1"}))
    cluster.put(quota("c", {"pods": "1"}, {"pods": "1"}, scopes=["BestEffort"]))
    assert await quota_of(client) == {"pods": "4", "requests.cpu": "1.5", "limits.memory": "0"}


@patient
@pytest.mark.deadlines(ready_believed=-1.0)
async def test_quotas_that_may_not_be_read_are_null_and_not_asked_for_again(
    client: Client, cluster: FakeCluster
) -> None:
    for _ in range(2):  # the probe, and the version
        cluster.do_before_next("get", lambda: None)
    cluster.answer_next("get", "raw-list-forbidden")
    for _ in range(3):
        one = await cluster_of(client)
        assert (one["state"], one["capacity"]["quota"]) == ("ready", None)
    assert cluster.calls.count(QUOTAS) == 1


@hasty
@pytest.mark.deadlines(quota_believed=0.0, quota_kept=0.5, ready_believed=-1.0)
async def test_a_cluster_that_hangs_shows_its_last_quotas_for_a_while_only(
    client: Client, cluster: FakeCluster
) -> None:
    while await quota_of(client) is None:
        await asyncio.sleep(0.001)
    answers = cluster.hold_next("get")
    while await quota_of(client) is not None:
        await asyncio.sleep(0.01)
    answers.set()
    while await quota_of(client) is None:
        await asyncio.sleep(0.001)


async def test_readyz_reads_no_quota(client: Client, cluster: FakeCluster) -> None:
    client.app[CLUSTERS]._of_file = True  # noqa: SLF001 - as with several clusters
    assert (await client.get("/readyz")).status == 200
    assert PROBE in cluster.calls
    assert QUOTAS not in cluster.calls
