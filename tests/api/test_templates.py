"""Templates and their extra objects, over HTTP."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.objects import EXTRA_KINDS
from sandboxes.spec.templates import Template, load_templates
from tests.api.conftest import URL, Client, MakeClient
from tests.conftest import ROOT
from tests.fakes import FakeCluster

CLAIM = ("PersistentVolumeClaim", "deer-flow", "sandbox-a-data")
CONFIG = ("ConfigMap", "deer-flow", "sandbox-a-config")


@functools.cache
def shipped_templates() -> dict[str, Template]:
    manifests = ROOT / "manifests"
    return load_templates(("default", manifests / "sandbox"), manifests / "templates")


@pytest.fixture
def templates() -> dict[str, Template]:
    """The shipped templates, one with a ConfigMap, and one with a ConfigMap and a claim."""
    shipped = copy.deepcopy(shipped_templates())
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-example-config"}, "data": {}}
    default = shipped["default"]
    configured = Template(default.pod, default.service, (config,), "With a ConfigMap.")
    two = Template(default.pod, default.service, (config, *shipped["persistent"].extras))
    return {**shipped, "configured": configured, "two": two}


@pytest.fixture
async def client(make_client: MakeClient, templates: dict[str, Template]) -> Client:
    return await make_client(templates=templates)


async def post(client: Client, **fields: Any) -> tuple[int, Any]:
    response = await client.post(URL, json={"sandbox_id": "a", **fields})
    return response.status, await response.json()


def remove_pod(cluster: FakeCluster) -> None:
    del cluster.objects["Pod", "deer-flow", "sandbox-a"]


async def test_templates_are_listed_without_a_kubectl_call(client: Client, cluster: FakeCluster) -> None:
    response = await client.get("/api/templates")
    assert response.status == 200
    answer = await response.json()
    assert answer["count"] == 6
    assert {one["name"]: one["objects"] for one in answer["templates"]} == {
        "configured": ["ConfigMap"],
        "default": [],
        "hardened": [],
        "isolated": [],
        "persistent": ["PersistentVolumeClaim"],
        "two": ["ConfigMap", "PersistentVolumeClaim"],
    }
    assert answer["templates"][0]["description"] == "With a ConfigMap."
    assert all(one["image"] for one in answer["templates"])
    assert cluster.calls == []


async def test_the_default_template_needs_no_extra_kubectl_call(client: Client, cluster: FakeCluster) -> None:
    assert (await post(client))[0] == 200
    assert (await post(client, template="default"))[0] == 200
    assert cluster.verbs() == {"get": 2, "apply": 1}


async def test_a_claim_is_created_before_the_pod_and_only_once(client: Client, cluster: FakeCluster) -> None:
    status, answer = await post(client, template="persistent")
    assert (status, answer["template"]) == (200, "persistent")
    verbs = [call[0] for call in cluster.calls]
    assert verbs.index("create") < verbs.index("apply")
    assert cluster.objects[CLAIM]["metadata"]["labels"]["provisioner/keep"] == "true"
    before = len(cluster.calls)
    assert (await post(client, template="persistent"))[0] == 200
    assert [call[0] for call in cluster.calls[before:]] == ["get"]


async def test_a_kept_claim_is_reused_by_its_owner_and_409_for_others(client: Client, cluster: FakeCluster) -> None:
    await post(client, thread_id="t", template="persistent")
    await client.delete(f"{URL}/a")
    claim = cluster.objects[CLAIM]
    status, answer = await post(client, thread_id="other", template="persistent")
    assert (status, answer["detail"]) == (
        409,
        "The PersistentVolumeClaim of sandbox 'a' belongs to another thread or user",
    )
    assert cluster.objects == {CLAIM: claim}
    assert (await post(client, thread_id="t", template="persistent"))[0] == 200
    assert cluster.objects[CLAIM]["metadata"]["uid"] == claim["metadata"]["uid"]
    marks = ("annotations", "provisioner/applied-at")
    assert cluster.objects[CLAIM]["metadata"][marks[0]][marks[1]] > claim["metadata"][marks[0]][marks[1]]


@pytest.mark.parametrize(
    ("verb", "case", "status"),
    [
        ("apply", "apply-quota-exceeded", 429),
        ("apply", "apply-pod-security-violation", 502),
        ("create", "refused", 503),
    ],
)
async def test_a_rejected_create_leaves_no_template_objects(
    client: Client, cluster: FakeCluster, verb: str, case: str, status: int
) -> None:
    cluster.answer_next(verb, case, times=4)
    assert (await post(client, template="persistent"))[0] == status
    assert cluster.objects == {}


async def test_a_failed_create_keeps_the_existing_claim(client: Client, cluster: FakeCluster) -> None:
    await post(client, template="persistent")
    await client.delete(f"{URL}/a")
    uid = cluster.objects[CLAIM]["metadata"]["uid"]
    cluster.do_before_next("apply", lambda: None)  # the claim's touch succeeds
    cluster.answer_next("apply", "apply-quota-exceeded")
    assert (await post(client, template="persistent"))[0] == 429
    assert [obj["metadata"]["uid"] for obj in cluster.objects.values()] == [uid]


async def test_a_claim_created_concurrently_by_another_owner_is_409(client: Client, cluster: FakeCluster) -> None:
    def other() -> None:
        owner = {"provisioner/thread-id": "other", "provisioner/user-id": "u", "provisioner/applied-at": "x"}
        meta = {"name": "sandbox-a-data", "namespace": "deer-flow", "annotations": owner}
        cluster.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": {}})

    cluster.do_before_next("create", other)
    assert (await post(client, template="persistent"))[0] == 409
    assert list(cluster.objects) == [CLAIM]
    assert cluster.objects[CLAIM]["metadata"]["annotations"]["provisioner/thread-id"] == "other"


async def test_a_conflict_on_the_first_object_creates_none_of_the_others(client: Client, cluster: FakeCluster) -> None:
    def other() -> None:
        owner = {"provisioner/thread-id": "other", "provisioner/user-id": "u", "provisioner/applied-at": "x"}
        meta = {"name": "sandbox-a-config", "namespace": "deer-flow", "annotations": owner}
        cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})

    cluster.do_before_next("create", other)
    assert (await post(client, template="two"))[0] == 409
    assert list(cluster.objects) == [CONFIG]
    assert cluster.verbs()["create"] == 1


async def test_a_claim_deleted_during_a_create_is_recreated(client: Client, cluster: FakeCluster) -> None:
    await post(client, template="persistent")
    await client.delete(f"{URL}/a")
    uid = cluster.objects[CLAIM]["metadata"]["uid"]

    def vanish() -> None:
        del cluster.objects[CLAIM]

    cluster.do_before_next("apply", vanish)
    assert (await post(client, template="persistent"))[0] == 200
    assert cluster.objects[CLAIM]["metadata"]["uid"] != uid


async def test_an_interrupted_kubectl_create_is_retried(client: Client, cluster: FakeCluster) -> None:
    cluster.say_next("create", "Unable to connect to the server: unexpected EOF\n")
    assert (await post(client, template="persistent"))[0] == 200
    assert cluster.verbs()["create"] == 2


async def test_deleting_a_sandbox_deletes_its_config_map(client: Client, cluster: FakeCluster) -> None:
    assert (await post(client, template="configured"))[0] == 200
    assert CONFIG in cluster.objects
    assert (await client.delete(f"{URL}/a")).status == 200
    await client.app[SANDBOX_SERVICE].extras.finish()
    assert cluster.objects == {}


async def test_leftover_objects_are_removed_after_the_grace_period(client: Client, cluster: FakeCluster) -> None:
    extras = client.app[SANDBOX_SERVICE].extras
    await post(client, template="configured")
    assert await extras.remove_leftovers(0) == []
    remove_pod(cluster)
    assert await extras.remove_leftovers(60) == []
    assert await extras.remove_leftovers(0, dry_run=True) == ["ConfigMap sandbox-a-config"]
    assert CONFIG in cluster.objects
    assert await extras.remove_leftovers(0) == ["ConfigMap sandbox-a-config"]
    assert CONFIG not in cluster.objects


async def test_finding_leftovers_takes_one_list_per_kind(client: Client, cluster: FakeCluster) -> None:
    assert await client.app[SANDBOX_SERVICE].extras.remove_leftovers(0) == []
    assert len(cluster.calls) == len(EXTRA_KINDS)


async def test_a_missing_right_to_list_extra_objects_is_logged_once(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    extras = client.app[SANDBOX_SERVICE].extras
    cluster.answer_next("get", "get-forbidden", times=2)
    assert await extras.remove_leftovers(0) == []
    assert await extras.remove_leftovers(0) == []
    assert caplog.text.count("can't be listed") == 1


async def test_leftovers_reused_by_a_running_create_are_kept(client: Client, cluster: FakeCluster) -> None:
    extras = client.app[SANDBOX_SERVICE].extras
    await post(client, template="configured")
    remove_pod(cluster)

    def touched() -> None:
        config = cluster.objects[CONFIG]
        config["metadata"]["annotations"]["provisioner/applied-at"] = "2100-01-01T00:00:00Z"
        cluster.put(config)

    cluster.do_before_next("delete", touched)
    await extras.remove_leftovers(0)
    assert CONFIG in cluster.objects


async def test_a_restricted_template_rejects_extra_mounts(
    make_client: MakeClient, templates: dict[str, Template]
) -> None:
    client = await make_client(templates=templates, DEER_FLOW_HOST_BASE_DIR="/base")
    mounts = [{"host_path": "/base/x", "container_path": "/mnt/acp-workspace"}]
    status, answer = await post(client, template="isolated", extra_mounts=mounts)
    assert (status, answer["detail"]) == (400, "extra_mounts is not available with the template 'isolated'")
    assert (await post(client, extra_mounts=mounts))[0] == 200


@pytest.mark.parametrize(
    ("case", "status"),
    [("refused", 503), ("apply-forbidden", 502), ("server-hangs", 504), ("apply-quota-exceeded", 429)],
)
async def test_creates_fail_until_the_network_policy_is_applied(
    make_client: MakeClient, cluster: FakeCluster, case: str, status: int
) -> None:
    meta = {"name": "sandboxes-isolated", "namespace": "deer-flow"}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": {}}
    open_client = await make_client()
    await post(open_client)
    client = await make_client(policies=(policy,))
    cluster.answer_next("apply", case, times=3 if case == "refused" else 1)
    assert (await post(client))[0] == status
    assert ("NetworkPolicy", "deer-flow", "sandboxes-isolated") not in cluster.objects
    before = cluster.verbs()["apply"]
    assert [(await post(client))[0], (await post(client, sandbox_id="b"))[0]] == [200, 200]
    assert ("NetworkPolicy", "deer-flow", "sandboxes-isolated") in cluster.objects
    # Three applies: the policy once, the annotation of the existing sandbox, and the second sandbox.
    assert cluster.verbs()["apply"] == before + 3
