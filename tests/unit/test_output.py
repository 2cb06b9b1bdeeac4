"""The output that kubectl must print to be accepted: exit code 0 and a name on stdout are no proof."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sandboxes import errors
from sandboxes.kubectl.client import APPLY, CREATE, DELETE, STORES, Kubectl
from sandboxes.kubectl.process import Completed
from tests.fakes import FakeCluster
from tests.record import case

Objects = list[dict[str, Any]]
Change = Callable[[Objects], object]

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sandbox-a", "namespace": "deer-flow", "uid": "u1", "resourceVersion": "7"},
}
POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "sandbox-a-policy", "namespace": "deer-flow"},
}


def raises_unreadable() -> pytest.RaisesExc[errors.ClusterUnavailable]:
    return pytest.raises(errors.ClusterUnavailable, match="The provisioner can't read kubectl's output")


def sent(name: str) -> Objects:
    """Return the stdin of a recorded call."""
    stdin = case(name).stdin
    items: Objects = stdin["items"] if stdin["kind"] == "List" else [stdin]
    return items


def text_of(name: str) -> bytes:
    """Return the stdout of a recorded call."""
    stdout = case(name).stdout
    return (stdout if isinstance(stdout, str) else json.dumps(stdout)).encode()


def listed(objects: Objects) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).encode()


@pytest.mark.parametrize("call", [APPLY, CREATE, DELETE])
def test_every_write_disables_dry_run_by_a_flag_of_kubectl_1_27(call: tuple[str, ...]) -> None:
    assert STORES in call
    assert STORES in case("kuberc-apply-dry-run-none").argv


# A delete


@pytest.mark.parametrize("name", ["kuberc-delete-interactive", "kuberc-delete-interactive-missing"])
async def test_an_interactive_delete_is_an_error(cluster: FakeCluster, kubectl: Kubectl, name: str) -> None:
    cluster.print_next("delete", text_of(name))
    with raises_unreadable() as caught:
        await kubectl.delete(sent(name))
    assert "deletion is cancelled" in caught.value.detail


async def test_a_recorded_delete_is_accepted(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.print_next("delete", text_of("delete-nowait"))
    await kubectl.delete(sent("delete-nowait"))


@pytest.mark.parametrize(
    "printed",
    [
        "pod/sandbox-a\n",
        "networkpolicy.networking.k8s.io/sandbox-a-policy\n",
        "pod/sandbox-a\nnetworkpolicy/sandbox-a-policy\n",
        "pod/sandbox-a-policy\nnetworkpolicy.networking.k8s.io/sandbox-a\n",
        "pod/sandbox-a (dry run)\nnetworkpolicy.networking.k8s.io/sandbox-a-policy\n",
        "pod/sandbox-a\nnetworkpolicy.networking.k8s.io/sandbox-a-policy\nservice/sandbox-a-svc\n",
        "pod/sandbox-a\nnetworkpolicy.networking.k8s.io/sandbox-a-policy\nand more\n",
    ],
)
async def test_a_delete_that_prints_other_objects_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, printed: str
) -> None:
    cluster.print_next("delete", printed.encode())
    with raises_unreadable():
        await kubectl.delete([POD, POLICY])


async def test_a_delete_that_prints_exactly_its_objects_is_accepted(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.print_next("delete", b"networkpolicy.networking.k8s.io/sandbox-a-policy\n\npod/sandbox-a\n")
    await kubectl.delete([POD, POLICY])


@pytest.mark.parametrize(
    ("printed", "is_accepted"), [(b"configmap/there\n", True), (b"", False), (b"pod/there\n", False)]
)
async def test_a_partly_missing_delete_must_print_the_deleted_object(printed: bytes, *, is_accepted: bool) -> None:
    there = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there", "namespace": "deer-flow"}}
    missing = 'Error from server (NotFound): error when deleting "STDIN": pods "sandbox-a" not found\n'

    async def runner(args: Sequence[str], *, stdin: bytes | None) -> Completed:
        assert stdin
        assert args
        return Completed(1, printed, missing)

    kubectl = Kubectl(runner, max_processes=1, max_waiting=1)
    if is_accepted:
        await kubectl.delete([POD, there])
    else:
        with raises_unreadable():
            await kubectl.delete([POD, there])


async def test_a_recorded_exact_delete_is_accepted(cluster: FakeCluster, kubectl: Kubectl) -> None:
    obj = copy.deepcopy(case("delete-precondition-right").stdout)
    obj["metadata"]["resourceVersion"] = case("delete-precondition-right").stdin["preconditions"]["resourceVersion"]
    cluster.print_next("delete", text_of("delete-precondition-right"))
    assert await kubectl.delete_exactly(obj)
    assert cluster.calls == [case("delete-precondition-right").argv[1:]]


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "Status", "status": "Failure"},
        {"kind": "Status"},
        {"kind": "Status", "status": None},
        {**POD, "kind": "Service"},
        {**POD, "metadata": {**POD["metadata"], "name": "sandbox-b"}},
        {**POD, "metadata": {**POD["metadata"], "uid": "u2"}},
        {"kind": "Pod"},
        [],
        "pod/sandbox-a",
    ],
)
async def test_an_exact_delete_with_another_response_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, answer: object
) -> None:
    cluster.print_next("delete", json.dumps(answer).encode())
    with raises_unreadable():
        await kubectl.delete_exactly(POD)


# An apply and a create


@pytest.mark.parametrize("name", ["kuberc-apply-dry-run", "kuberc-apply-dry-run-flag-first"])
async def test_an_apply_that_stored_nothing_is_an_error(cluster: FakeCluster, kubectl: Kubectl, name: str) -> None:
    cluster.print_next("apply", text_of(name))
    with raises_unreadable() as caught:
        await kubectl.apply(sent(name))
    assert sent(name)[0]["metadata"]["name"] in caught.value.detail


@pytest.mark.parametrize("name", ["kuberc-apply-dry-run-none", "apply-create", "apply-one-object", "namespace-apply"])
async def test_a_recorded_apply_is_accepted(cluster: FakeCluster, kubectl: Kubectl, name: str) -> None:
    cluster.print_next("apply", text_of(name))
    assert await kubectl.apply(sent(name)) == case(name).items


async def test_applied_objects_are_returned_in_the_order_of_the_request(cluster: FakeCluster, kubectl: Kubectl) -> None:
    items = case("apply-create").items
    cluster.print_next("apply", listed(items[::-1]))
    assert await kubectl.apply(sent("apply-create")) == items


CHANGES: dict[str, Change] = {
    "one is missing": lambda objects: objects.pop(),
    "one too many": lambda objects: objects.append(POD),
    "one twice": lambda objects: objects.append(objects[0]),
    "another name": lambda objects: objects[0]["metadata"].update(name="sandbox-b"),
    "another namespace": lambda objects: objects[0]["metadata"].update(namespace="default"),
    "another kind": lambda objects: objects[1].update(kind="ConfigMap"),
    "no uid": lambda objects: objects[1]["metadata"].pop("uid"),
    "no version": lambda objects: objects[1]["metadata"].pop("resourceVersion"),
    "an empty version": lambda objects: objects[1]["metadata"].update(resourceVersion=""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_an_apply_with_another_response_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, change: Change
) -> None:
    objects = copy.deepcopy(case("apply-create").items)
    change(objects)
    cluster.print_next("apply", listed(objects))
    with raises_unreadable():
        await kubectl.apply(sent("apply-create"))


async def test_a_recorded_dry_run_is_accepted_as_one(cluster: FakeCluster, kubectl: Kubectl) -> None:
    name = "apply-dry-run-server-strict"
    cluster.print_next("apply", text_of(name))
    assert await kubectl.dry_run(sent(name)) == case(name).items
    assert set(cluster.calls[0]) == set(case(name).argv[1:])


@pytest.mark.parametrize("name", ["create-list", "create-one"])
async def test_a_recorded_create_is_accepted(cluster: FakeCluster, kubectl: Kubectl, name: str) -> None:
    cluster.print_next("create", text_of(name))
    created = await kubectl.create(sent(name))
    assert [obj["metadata"]["name"] for obj in created] == [obj["metadata"]["name"] for obj in sent(name)]
    assert all(obj["metadata"]["resourceVersion"] for obj in created)
    assert {"create", "-o", "json", "-f", "-"} == set(case(name).argv[1:]) <= set(cluster.calls[0])


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        text_of("create-list-name-output"),
        text_of("create-list")[:-3],
        text_of("create-list").replace(b"resourceVersion", b"generateName"),
        text_of("create-list") + b"garbage",
        text_of("create-list") + text_of("create-one"),
        text_of("create-one"),
    ],
    ids=["nothing", "names", "cut short", "a dry run", "more", "another one", "another"],
)
async def test_a_create_with_another_response_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, printed: bytes
) -> None:
    cluster.print_next("create", printed)
    with raises_unreadable():
        await kubectl.create(sent("create-list"))


# An annotation


@pytest.mark.parametrize(
    ("metadata", "is_accepted"),
    [
        ({}, True),
        ({"uid": "u2"}, False),
        # A dry run prints the version that exists already.
        ({"resourceVersion": "7"}, False),
        ({"resourceVersion": None}, False),
    ],
)
async def test_annotate_needs_a_new_version_of_the_same_object(
    cluster: FakeCluster, kubectl: Kubectl, metadata: dict[str, str], *, is_accepted: bool
) -> None:
    new = {**POD["metadata"], "resourceVersion": "8", "annotations": {"a/b": "c"}, **metadata}
    cluster.print_next("apply", json.dumps({**POD, "metadata": new}).encode())
    if is_accepted:
        assert (await kubectl.annotate(POD, {"a/b": "c"}, manager="test"))["metadata"] == new
    else:
        with raises_unreadable():
            await kubectl.annotate(POD, {"a/b": "c"}, manager="test")


async def test_annotate_accepts_the_same_version_if_the_annotation_exists(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    annotated = {**POD, "metadata": {**POD["metadata"], "annotations": {"a/b": "c"}}}
    cluster.print_next("apply", json.dumps(annotated).encode())
    assert await kubectl.annotate(annotated, {"a/b": "c"}, manager="test") == annotated


# A get


@pytest.mark.parametrize(
    "found",
    [[], [POD], [POD, POD], [POD, {**POLICY, "kind": "ConfigMap"}], [POD, POLICY, case("get-one").stdout]],
    ids=["nothing", "one of two", "one of two twice", "another kind", "more"],
)
async def test_a_get_that_does_not_report_missing_objects_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, found: Objects
) -> None:
    cluster.print_next("get", listed(found))
    with raises_unreadable():
        await kubectl.get([POD, POLICY])


@pytest.mark.parametrize("printed", [b"", b"ready", b"okay", b"ok\nbut", b'{"kind": "Status"}'])
async def test_a_probe_accepts_only_ok(cluster: FakeCluster, kubectl: Kubectl, printed: bytes) -> None:
    cluster.print_next("get", printed)
    with raises_unreadable():
        await kubectl.probe()
    await kubectl.probe()


async def test_a_namespace_must_be_printed_by_its_exact_name(cluster: FakeCluster, kubectl: Kubectl) -> None:
    for printed in (b"namespace/deer-flow-2\n", b"namespace/deer\n", b"deer-flow\n", b"namespace/deer-flow x\n", b"{}"):
        cluster.print_next("get", printed)
        with raises_unreadable():
            await kubectl.namespace_exists("deer-flow")
    assert await kubectl.namespace_exists("deer-flow")
    assert not await kubectl.namespace_exists("other")
