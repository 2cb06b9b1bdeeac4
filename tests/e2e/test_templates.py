"""Templates on a cluster: the list, and claims that outlive their sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Target, wait_for
from tests.e2e.service import URL, Service

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def has_default_storage_class(target: Target) -> bool:
    classes = json.loads(target.kubectl("get", "storageclasses", "-o", "json"))["items"]
    return any(one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true" for one in classes)


def claims(target: Target, sandbox_id: str) -> list[dict[str, Any]]:
    printed = target.kubectl("get", "persistentvolumeclaims", "-l", f"sandbox-id={sandbox_id}", "-o", "json")
    items: list[dict[str, Any]] = json.loads(printed)["items"]
    return items


def test_the_shipped_templates_are_listed(service: Service) -> None:
    answer = service.call("GET", "/api/templates")
    assert answer.status == 200
    assert {"default", "hardened", "isolated", "persistent"} <= {one["name"] for one in answer.body["templates"]}


@pytest.mark.repeats("tests/contract/test_templates.py::test_a_persistent_sandboxs_claim_is_kept_for_its_owner")
def test_a_persistent_claim_outlives_its_sandbox_for_its_owner(
    service: Service, target: Target, sandbox_id: str
) -> None:
    if not has_default_storage_class(target):
        pytest.skip("the cluster has no default StorageClass")
    service.create(sandbox_id, thread_id="t", template="persistent")
    wait_for(lambda: service.is_running(sandbox_id), "the sandbox is Running", seconds=180)
    (before,) = claims(target, sandbox_id)
    service.delete(sandbox_id)
    wait_for(lambda: not target.objects(sandbox_id), "Pod and Service are deleted")
    other = service.call("POST", URL, {"sandbox_id": sandbox_id, "thread_id": "o", "template": "persistent"})
    assert other.status == 409
    service.create(sandbox_id, thread_id="t", template="persistent")
    (after,) = claims(target, sandbox_id)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    target.kubectl("delete", "persistentvolumeclaims", "-l", f"sandbox-id={sandbox_id}", "--wait=false")
