"""The options of a create, over HTTP: permission, validation, effect, and rejections by the cluster."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sandboxes.models.requests import CLUSTER_FIELDS, OPTIONAL_FIELDS
from tests.api.client import create
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster

ALL = ",".join(sorted(OPTIONAL_FIELDS))


@pytest.fixture
async def open_client(make_client: MakeClient) -> Client:
    """Return a client of a service that allows every field."""
    return await make_client(ALLOW_FIELDS=ALL)


def container(cluster: FakeCluster, sandbox_id: str = "a") -> dict[str, Any]:
    pod = cluster.pod(sandbox_id)
    assert pod is not None
    one: dict[str, Any] = pod["spec"]["containers"][0]
    return one


def metadata_of(obj: dict[str, Any] | None, kind: str = "labels") -> dict[str, str]:
    assert obj is not None
    found: dict[str, str] = obj["metadata"][kind]
    return found


# Permission


async def test_capabilities_list_the_allowed_fields(make_client: MakeClient) -> None:
    client = await make_client(ALLOW_FIELDS="resources, env,env")
    assert (await (await client.get("/api/capabilities")).json())["fields"] == ["env", "resources"]
    client = await make_client(ALLOW_FIELDS="none")
    assert (await (await client.get("/api/capabilities")).json())["fields"] == []


@pytest.mark.parametrize("field", sorted(CLUSTER_FIELDS))
@pytest.mark.parametrize("value", [0, "west", {"region": "west"}])
async def test_without_a_list_of_clusters_a_wish_for_one_is_an_unknown_field(
    make_client: MakeClient, field: str, value: object
) -> None:
    client = await make_client()
    response = await client.post(URL, json={"sandbox_id": "a", field: value})
    assert response.status == 200
    assert "cluster" not in await response.json()


@pytest.mark.parametrize("field", sorted(OPTIONAL_FIELDS - CLUSTER_FIELDS))
@pytest.mark.parametrize("value", [0, "", {}, [], "x", {"cpu": []}, -1, False])
async def test_a_field_that_is_not_allowed_is_403_even_if_malformed(
    make_client: MakeClient, cluster: FakeCluster, field: str, value: object
) -> None:
    client = await make_client(ALLOW_FIELDS=",".join(OPTIONAL_FIELDS - {field}))
    response = await client.post(URL, json={"sandbox_id": "a", field: value})
    assert (response.status, await response.json()) == (
        403,
        {"detail": f"The operator does not allow these fields: {field}"},
    )
    assert cluster.calls == []


async def test_all_fields_that_are_not_allowed_are_named_before_validation(
    make_client: MakeClient, cluster: FakeCluster
) -> None:
    client = await make_client(ALLOW_FIELDS="env")
    response = await client.post(URL, json={"sandbox_id": "NO", "image": 5, "env": 5, "annotations": {"a": 1}})
    assert response.status == 403
    assert (await response.json())["detail"] == "The operator does not allow these fields: annotations, image"
    assert cluster.calls == []


async def test_image_and_annotations_are_not_allowed_by_default(client: Client) -> None:
    for field in ("image", "annotations"):
        response = await client.post(URL, json={"sandbox_id": "a", field: "x"})
        assert response.status == 403


async def test_null_options_and_contract_fields_are_always_allowed(
    make_client: MakeClient, cluster: FakeCluster
) -> None:
    client = await make_client(ALLOW_FIELDS="none")
    fields = {"thread_id": "t", "user_id": "u", "extra_mounts": [], "include_legacy_skills": True, "newer": 1}
    response = await client.post(URL, json={"sandbox_id": "a", **fields, **dict.fromkeys(OPTIONAL_FIELDS)})
    assert response.status == 200
    assert container(cluster)["env"] == [container(cluster)["env"][-1]]


# Validation


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"template": "none"}, ["template"]),
        ({"template": 5}, ["template"]),
        ({"image": 5}, ["image"]),
        ({"image": "a b"}, ["image"]),
        ({"env": []}, ["env"]),
        ({"env": {"A": 5}}, ["env", "A"]),
        ({"env": {"A": None}}, ["env", "A"]),
        ({"env": {"A=B": ""}}, ["env", "A=B"]),
        ({"env": {"SANDBOX_REVISION": "x"}}, ["env", "SANDBOX_REVISION"]),
        ({"env": {"A": "\0"}}, ["env", "A"]),
        ({"env": {"A": "x" * 70_000}}, ["env"]),
        ({"env": {f"A{index}": "" for index in range(101)}}, ["env"]),
        ({"resources": []}, ["resources"]),
        ({"resources": {"limits": []}}, ["resources", "limits"]),
        ({"resources": {"limits": {"cpu": "3"}}}, ["resources", "limits", "cpu"]),
        ({"resources": {"limits": {"cpu": True}}}, ["resources", "limits", "cpu"]),
        ({"resources": {"requests": {"memory": "1 GB"}}}, ["resources", "requests", "memory"]),
        ({"resources": {"requests": {"memory": "1025Mi"}}}, ["resources", "requests", "memory"]),
        ({"resources": {"requests": {"gpu": 1}}}, ["resources", "requests", "gpu"]),
        ({"labels": "x"}, ["labels"]),
        ({"labels": {"a": 1}}, ["labels", "a"]),
        ({"labels": {"sandbox-id": "b"}}, ["labels", "sandbox-id"]),
        ({"labels": {f"a{index}": "" for index in range(101)}}, ["labels"]),
        ({"annotations": {"provisioner/thread-id": "b"}}, ["annotations", "provisioner/thread-id"]),
        ({"annotations": {"a": "x" * 70_000}}, ["annotations"]),
        ({"ttl_seconds": -1}, ["ttl_seconds"]),
        ({"idle_timeout_seconds": "soon"}, ["idle_timeout_seconds"]),
        ({"wait_seconds": -1}, ["wait_seconds"]),
    ],
)
async def test_an_invalid_option_is_422_without_a_kubectl_call(
    open_client: Client, cluster: FakeCluster, fields: dict[str, Any], location: list[str]
) -> None:
    response = await open_client.post(URL, json={"sandbox_id": "a", **fields})
    assert response.status == 422
    (entry,) = (await response.json())["detail"]
    assert set(entry) == {"type", "loc", "msg", "input"}
    assert entry["loc"] == ["body", *location]
    assert cluster.calls == []


async def test_a_huge_number_as_a_quantity_is_422(open_client: Client, cluster: FakeCluster) -> None:
    for number in ("1e999", "1" * 4000):
        body = b'{"sandbox_id":"a","resources":{"limits":{"cpu":%s}}}' % number.encode()
        response = await open_client.post(URL, data=body)
        assert response.status == 422
    assert cluster.calls == []


@pytest.mark.parametrize("field", ["env", "labels", "annotations"])
async def test_too_many_entries_are_one_error(open_client: Client, field: str) -> None:
    body = json.dumps({"sandbox_id": "a", field: {str(index): 0 for index in range(80_000)}})
    response = await open_client.post(URL, data=body)
    assert response.status == 422
    (entry,) = (await response.json())["detail"]
    assert (entry["loc"], entry["msg"]) == (["body", field], "It may have at most 100 entries")


# Effect


async def test_options_are_applied_to_the_pod_and_service(open_client: Client, cluster: FakeCluster) -> None:
    answer = await create(
        open_client,
        image="registry.local/mine:1",
        env={"HOME": "/x", "PRICE": "$(HOME) $5"},
        resources={"limits": {"cpu": "50m"}},
        labels={"team": "x"},
        annotations={"example.com/note": "any text"},
    )
    assert answer["image"] == container(cluster)["image"] == "registry.local/mine:1"
    assert container(cluster)["env"][:-1] == [
        {"name": "HOME", "value": "/x"},
        {"name": "PRICE", "value": "$$(HOME) $$5"},
    ]
    assert container(cluster)["resources"]["requests"]["cpu"] == "50m"
    assert container(cluster)["resources"]["limits"]["cpu"] == "50m"
    assert metadata_of(cluster.pod("a"))["team"] == metadata_of(cluster.service("a"))["team"] == "x"
    assert metadata_of(cluster.pod("a"), "annotations")["example.com/note"] == "any text"


OTHER: dict[str, Any] = {
    "image": "other:2",
    "env": {"B": "2"},
    "resources": {"limits": {"cpu": "2"}},
    "labels": {"team": "y", "more": "z"},
    "annotations": {"note": "2"},
}


async def test_a_repeated_create_with_other_options_changes_nothing(open_client: Client, cluster: FakeCluster) -> None:
    first = await create(open_client, image="mine:1", labels={"team": "x"})
    before = copy.deepcopy(cluster.objects)
    assert await create(open_client, **OTHER) == first
    assert cluster.objects == before


@pytest.mark.parametrize(
    ("fields", "kept"), [({"labels": {"team": "x"}}, {"team": "x"}), (OTHER, {}), ({}, {})], ids=["same", "other", "no"]
)
async def test_a_recreated_service_has_only_requested_labels_of_its_pod(
    open_client: Client, cluster: FakeCluster, fields: dict[str, Any], kept: dict[str, str]
) -> None:
    await create(open_client, labels={"team": "x"})
    other_labels = {key: value for key, value in metadata_of(cluster.service("a")).items() if key != "team"}
    pod = copy.deepcopy(cluster.pod("a"))
    service = cluster.service("a")
    assert service is not None
    del cluster.objects[cluster.key(service)]
    await create(open_client, **fields)
    assert metadata_of(cluster.service("a")) == {**other_labels, **kept}
    assert metadata_of(cluster.pod("a")) == metadata_of(pod)


async def test_an_adopted_sandbox_gets_none_of_the_requested_options(open_client: Client, cluster: FakeCluster) -> None:
    await create(open_client, "b")
    pod, service = cluster.pod("b"), cluster.service("b")
    assert pod is not None
    assert service is not None
    for obj in (pod, service):
        obj["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
        obj["metadata"]["annotations"] = {}
    spec = copy.deepcopy(pod["spec"])
    await create(open_client, "b", **OTHER)
    for adopted in (cluster.pod("b"), cluster.service("b")):
        assert "app.kubernetes.io/managed-by" in metadata_of(adopted)
        assert not metadata_of(adopted).keys() & OTHER["labels"].keys()
        assert not metadata_of(adopted, "annotations").keys() & OTHER["annotations"].keys()
    assert container(cluster, "b") == spec["containers"][0]


@pytest.mark.parametrize("owner", [{"thread_id": "another"}, {}], ids=["another owner", "the same owner"])
async def test_a_concurrent_second_create_changes_no_labels(
    open_client: Client, cluster: FakeCluster, owner: dict[str, str]
) -> None:
    await create(open_client, thread_id="first", env={"A": "1"}, labels={"team": "x"})
    made = copy.deepcopy(cluster.objects)
    cluster.objects.clear()
    # The first create's objects appear between the second one's get and its apply.
    cluster.do_before_next("apply", lambda: cluster.objects.update(copy.deepcopy(made)))
    fields = {"sandbox_id": "a", "thread_id": "first", "env": {"A": "2"}, "labels": {"team": "y", "more": "z"}, **owner}
    response = await open_client.post(URL, json=fields)
    assert response.status == (409 if owner else 200)
    assert metadata_of(cluster.service("a")) == metadata_of(made[("Service", "deer-flow", "sandbox-a-svc")])
    assert metadata_of(cluster.pod("a")) == metadata_of(made[("Pod", "deer-flow", "sandbox-a")])


@pytest.mark.deadlines(others_service=0.1)
async def test_a_create_with_a_rejected_service_leaves_no_pod(open_client: Client, cluster: FakeCluster) -> None:
    cluster.do_before_next("apply", lambda: cluster.answer_next("apply", "apply-nodeports-exhausted"))
    response = await open_client.post(URL, json={"sandbox_id": "a", "labels": {"team": "x"}})
    assert response.status == 429
    assert cluster.verbs()["apply"] == 2
    assert cluster.objects == {}


# Rejections by the cluster

INVALID = 'The Pod "sandbox-a" is invalid: {}: Invalid value: "x": no'
LIMIT_RANGE = (
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
)


@pytest.mark.parametrize(
    ("fields", "stderr", "field"),
    [
        ({"resources": {"limits": {"cpu": "2"}}}, LIMIT_RANGE, "resources"),
        ({"resources": {"limits": {"cpu": "2"}}}, INVALID.format("spec.containers[0].resources.limits"), "resources"),
        ({"image": "x"}, INVALID.format("spec.containers[0].image"), "image"),
        ({"env": {".a": "x"}}, INVALID.format("spec.containers[0].env[0].name"), "env"),
        ({"labels": {"a": "x"}}, INVALID.format("metadata.labels"), "labels"),
        ({"annotations": {"a": "x"}}, INVALID.format("metadata.annotations"), "annotations"),
        ({"annotations": None, "user_id": "u"}, INVALID.format("metadata.annotations"), "user_id"),
        ({"labels": None}, INVALID.format("metadata.labels"), "sandbox_id"),
    ],
)
async def test_a_rejection_of_a_requested_field_is_422_with_that_field(
    open_client: Client, cluster: FakeCluster, fields: dict[str, Any], stderr: str, field: str
) -> None:
    cluster.say_next("apply", stderr)
    response = await open_client.post(URL, json={"sandbox_id": "a", **fields})
    assert response.status == 422
    (entry,) = (await response.json())["detail"]
    assert entry["loc"] == ["body", field]
    assert cluster.objects == {}


@pytest.mark.parametrize(
    "stderr",
    [
        LIMIT_RANGE,
        INVALID.format("spec.containers[0].image"),
        INVALID.format("spec.containers[0].env[0].name"),
        INVALID.format("spec.containers[0].resources.requests"),
        INVALID.format("metadata.annotations"),
    ],
)
@pytest.mark.parametrize("fields", [{}, dict.fromkeys(OPTIONAL_FIELDS)], ids=["absent", "null"])
async def test_a_rejection_of_a_field_that_was_not_requested_is_502(
    open_client: Client, cluster: FakeCluster, stderr: str, fields: dict[str, None]
) -> None:
    cluster.say_next("apply", stderr)
    response = await open_client.post(URL, json={"sandbox_id": "a", **fields})
    assert response.status == 502
    assert isinstance((await response.json())["detail"], str)


async def test_renew_is_403_if_ttl_seconds_is_not_allowed(make_client: MakeClient) -> None:
    client = await make_client(ALLOW_FIELDS="env")
    assert (await client.post(URL, json={"sandbox_id": "a"})).status == 200
    response = await client.post(f"{URL}/a/renew", json={"ttl_seconds": 0})
    assert response.status == 403
    assert "ttl_seconds" in (await response.json())["detail"]
