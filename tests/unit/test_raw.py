"""Raw lists and watches: request paths and accepted responses, with the recorded ones."""

from __future__ import annotations

import copy
import json
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest

from sandboxes import errors
from sandboxes import objects as kube
from sandboxes.kubectl import raw
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.output import LONG
from tests.fakes import FakeCluster
from tests.record import case

PODS = raw.sandboxes_of("deer-flow", "Pod")


def recorded(name: str) -> Any:
    """Return a copy of the recorded response, which a test may modify."""
    return copy.deepcopy(case(name).stdout)


def printed(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.fixture
def kubectl(cluster: FakeCluster) -> Kubectl:
    return Kubectl(cluster, max_processes=2, max_waiting=2)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_a_list_uses_the_recorded_path() -> None:
    requested = urlsplit(raw.sandboxes_of("rec3", "Pod").list_path())
    recorded_path = urlsplit(case("raw-list-limit").argv[-1])
    assert requested.path == recorded_path.path
    assert dict(parse_qsl(requested.query)) == dict(parse_qsl(recorded_path.query)) | {"limit": str(raw.PAGE)}


def test_a_watch_uses_the_recorded_path() -> None:
    requested = urlsplit(raw.sandboxes_of("rec3", "Pod").watch_path(315782, 75))
    recorded_path = urlsplit(case("raw-watch").argv[-1])
    assert requested.path == recorded_path.path
    assert dict(parse_qsl(requested.query)) == dict(parse_qsl(recorded_path.query))


def test_template_objects_are_listed_in_their_api_groups() -> None:
    paths = [urlsplit(one.list_path()).path for one in raw.extras_of("ns")]
    assert sorted(paths) == [
        "/api/v1/namespaces/ns/configmaps",
        "/api/v1/namespaces/ns/persistentvolumeclaims",
        "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies",
    ]


def test_listed_items_have_the_form_of_kubectls_output() -> None:
    page = PODS.read_page(printed(recorded("raw-list-one")))
    (pod,) = page.objects
    assert (pod["apiVersion"], pod["kind"], pod["metadata"]["name"]) == ("v1", "Pod", "raw-b")
    assert "managedFields" not in pod["metadata"]
    assert page.version == 315848
    assert page.proceed == ""


@pytest.mark.parametrize("items", [[], None])
def test_a_list_without_items_is_empty(items: object) -> None:
    page = PODS.read_page(printed(recorded("raw-list-empty") | {"items": items}))
    assert page == raw.Page([], 315782, "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"ok",
        lambda _: b"[]",
        lambda _: b"null",
        lambda document: printed(document)[:-1],
        lambda document: printed(document | {"kind": "ServiceList"}),
        lambda document: printed(document | {"kind": "List"}),
        lambda document: printed(document | {"metadata": {}}),
        lambda document: printed(document | {"metadata": {"resourceVersion": ""}}),
        lambda document: printed({key: part for key, part in document.items() if key != "items"}),
        lambda document: printed(document | {"items": [{}]}),
        lambda document: printed(
            document | {"items": [{"metadata": {"name": "a", "namespace": "n", "resourceVersion": "1"}}]}
        ),
        lambda document: printed(document | {"items": [{"metadata": {"name": "a", "namespace": "n", "uid": "u"}}]}),
        lambda document: printed(document | {"items": "abc"}),
    ],
)
def test_output_that_is_no_list_of_the_kind_is_an_error(damage: Any) -> None:
    with pytest.raises(errors.ClusterUnavailable, match="can't read kubectl's output"):
        PODS.read_page(damage(recorded("raw-list-one")))


def test_every_recorded_event_is_parsed() -> None:
    lines = recorded("raw-watch")
    events = [PODS.read_event(printed(line)) for line in lines]
    assert [event.type for event in events] == [line["type"] for line in lines]
    versions = [event.version for event in events]
    assert versions == sorted(versions)
    assert {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"} == {event.type for event in events}
    assert not any("managedFields" in event.obj["metadata"] for event in events if event.type != "BOOKMARK")


def test_an_error_event_has_its_status() -> None:
    (line,) = recorded("raw-watch-too-old")
    event = PODS.read_event(printed(line))
    assert (event.type, event.obj["code"], event.version) == ("ERROR", 410, 0)


WHOLE = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1"}


def event(kind: str = "Pod", type: object = "ADDED", **metadata: Any) -> bytes:  # noqa: A002 - the API's word
    """Return an event's line; None removes a field of its metadata."""
    fields = {name: value for name, value in {**WHOLE, **metadata}.items() if value is not None}
    return printed({"type": type, "object": {"kind": kind, "metadata": fields}})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no JSON",
        event()[:40],
        b"[]",
        b"{}",
        b"null",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": null}',
        b'{"type": "ADDED", "object": {"kind": "Pod"}}',
        *(event(**cast(Any, {field: None})) for field in WHOLE),
        event(resourceVersion="x"),
        event(kind="Node"),
        event(type="OTHER"),
        event(type=["ADDED"]),
        b'{"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {}}}',
        b'{"type": "ERROR", "object": 7}',
    ],
)
def test_a_line_that_is_no_event_of_the_kind_is_rejected(line: bytes) -> None:
    assert PODS.read_event(event()).version == 1
    with pytest.raises(ValueError, match=r".*"):
        PODS.read_event(line)


async def test_a_list_of_several_pages_is_complete(
    cluster: FakeCluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "PAGE", 2)
    for number in range(5):
        name = {"name": f"sandbox-s{number}", "namespace": "deer-flow", "labels": kube.labels_of(f"s{number}")}
        cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": name, "spec": {}})
    listed = await kubectl.list_objects(PODS)
    assert [obj["metadata"]["name"] for obj in listed] == [f"sandbox-s{number}" for number in range(5)]
    assert cluster.verbs() == {"get": 3}


async def test_a_long_page_is_parsed(cluster: FakeCluster, kubectl: Kubectl) -> None:
    document = recorded("raw-list-one")
    document["items"] *= 300
    assert len(printed(document)) > LONG
    cluster.print_next("get", printed(document))
    assert len(await kubectl.list_objects(PODS)) == 300


async def test_empty_output_of_a_list_is_an_error(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.print_next("get", b"")
    with pytest.raises(errors.ClusterUnavailable, match="can't read kubectl's output"):
        await kubectl.list_sandboxes("deer-flow")


async def test_a_list_with_an_expired_continue_token_can_be_retried(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.say_next("get", "Error from server (Expired): The provided continue parameter is too old to display\n")
    with pytest.raises(errors.ServerFailed) as raised:
        await kubectl.list_objects(PODS)
    assert raised.value.pauses


async def test_a_list_that_repeats_its_continue_token_is_an_error(cluster: FakeCluster, kubectl: Kubectl) -> None:
    page = recorded("raw-list-limit")
    page["metadata"]["continue"] = "token"
    for _ in range(2):
        cluster.print_next("get", printed(page))
    with pytest.raises(errors.ClusterUnavailable, match="can't read kubectl's output"):
        await kubectl.list_objects(PODS)
