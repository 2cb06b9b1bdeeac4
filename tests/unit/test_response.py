"""(Pod, Service) → the response: its fields, the URL, and pairs without a response."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandboxes.access.accesses import Accesses
from sandboxes.models.responses import SandboxList
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from sandboxes.status.response import Answers, answer_for, answers_for
from tests.record import case
from tests.unit.manifests import sandbox_url

MakeSettings = Callable[..., Settings]


@pytest.fixture
def pair(make_settings: MakeSettings, template: Template) -> tuple[Any, Any]:
    pod, service = build(Sandbox("a", "a", "u"), template, make_settings(), applied_at="2026-01-01T00:00:00Z")
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    pod["spec"]["nodeName"] = "node-1"
    service["spec"]["ports"][0]["nodePort"] = 30123
    return pod, service


def test_a_complete_sandbox_has_every_field(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    answer = answer_for(*pair, Accesses(make_settings(NODE_HOST="node.example")))
    assert answer is not None
    assert answer.model_dump() == {
        "sandbox_id": "a",
        "sandbox_url": "http://node.example:30123",
        "status": "Running",
        "ready": True,
        "reason": None,
        "message": None,
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": None,
        "thread_id": "a",
        "user_id": "u",
        "template": "default",
        "image": make_settings().sandbox_image,
        "node": "node-1",
        "mount_contract_version": 2,
    }


def test_an_incomplete_sandbox_has_no_response(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    pod, service = pair
    assert answer_for(pod, None, Accesses(make_settings())) is None
    assert answer_for(None, service, Accesses(make_settings())) is None


@pytest.mark.parametrize("index", [0, 1])
def test_a_terminating_sandbox_has_no_response(make_settings: MakeSettings, pair: tuple[Any, Any], index: int) -> None:
    pair[index]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert answer_for(*pair, Accesses(make_settings())) is None


def test_a_pod_without_the_sandbox_labels_has_no_response(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    pod, service = pair
    del pod["metadata"]["labels"]["app"]
    assert answer_for(pod, service, Accesses(make_settings())) is None
    assert answers_for([pod, service], Accesses(make_settings())) == []


def test_a_pod_whose_name_contradicts_its_label_has_no_response(
    make_settings: MakeSettings, pair: tuple[Any, Any]
) -> None:
    pod, service = pair
    pod["metadata"]["name"] = "sandbox-b"
    assert answers_for([pod, service], Accesses(make_settings())) == []


def test_a_list_pairs_objects_by_id_and_is_sorted(make_settings: MakeSettings) -> None:
    objects = copy.deepcopy(case("list-mixed").items)
    answers = answers_for(reversed(objects), Accesses(make_settings()))
    ids = [answer.sandbox_id for answer in answers]
    assert ids == sorted(ids)
    assert len(ids) > 1
    for answer in answers:
        of_it = [obj for obj in objects if obj["metadata"]["labels"]["sandbox-id"] == answer.sandbox_id]
        pod, service = sorted(of_it, key=lambda obj: str(obj["kind"]))
        assert answer_for(pod, service, Accesses(make_settings())) == answer


def test_the_url_of_a_node_port_has_the_node_host(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    assert sandbox_url(pair[1], make_settings(NODE_HOST="2001:db8::1")) == "http://[2001:db8::1]:30123"


def test_the_url_of_a_cluster_ip_is_the_services_dns_name(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    settings = make_settings(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="9000")
    assert sandbox_url(pair[1], settings) == "http://sandbox-a-svc.deer-flow.svc.cluster.local:8080"


def test_a_service_without_a_node_port_has_no_url(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    del pair[1]["spec"]["ports"][0]["nodePort"]
    assert sandbox_url(pair[1], make_settings()) is None


def test_cached_responses_are_renewed_when_objects_change(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    accesses = Accesses(make_settings())
    answers = Answers(accesses)
    pod, service = pair
    first = answers.of(pod, service)
    assert first is not None
    assert answers.of(pod, service) is first
    ended = copy.deepcopy(pod)
    ended["status"]["phase"] = "Failed"
    assert answers.of(ended, service) == answer_for(ended, service, accesses) != first
    assert answers.of(pod, None) is None
    assert [answer.status for answer in answers.of_all([(ended, service)])] == ["Failed"]


def test_a_response_is_serialized_like_its_fields(make_settings: MakeSettings, pair: tuple[Any, Any]) -> None:
    answer = answer_for(*pair, Accesses(make_settings()))
    assert answer is not None
    assert json.loads(answer.as_json) == answer.model_dump(mode="json")
    many = SandboxList(sandboxes=[answer, answer], count=2)
    assert json.loads(many.as_json) == many.model_dump(mode="json")
