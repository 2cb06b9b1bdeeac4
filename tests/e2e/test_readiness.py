"""Waiting for a sandbox, on any cluster."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import StartService, Target
from tests.e2e.service import URL, Service, answers


@pytest.mark.repeats("tests/contract/test_readiness.py::test_a_create_with_wait_seconds_returns_a_ready_sandbox")
def test_a_waiting_create_returns_a_ready_and_reachable_sandbox(service: Service, sandbox_id: str) -> None:
    made = service.create(sandbox_id, wait_seconds=24)
    if not made["ready"]:  # the node may have to pull the image
        made = service.call("GET", f"{URL}/{sandbox_id}?wait_seconds=24").body
    assert (made["status"], made["ready"], made["url_checked"]) == ("Running", True, True)
    assert answers(made["sandbox_url"])


@pytest.mark.repeats("tests/contract/test_readiness.py::test_an_image_pull_error_ends_the_wait")
def test_a_failed_image_pull_ends_the_wait_early(start_service: StartService, target: Target, sandbox_id: str) -> None:
    service = start_service(SANDBOX_IMAGE="localhost:1/none:none")
    began = time.monotonic()
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id, "wait_seconds": 24})
    assert answer.status == 200
    assert time.monotonic() - began < 20
    if target.is_real:
        assert answer.body["reason"] in {"ErrImagePull", "ImagePullBackOff"}
    else:  # devcluster runs any image
        assert answer.body["ready"] is True


@pytest.mark.repeats("tests/contract/test_readiness.py::test_a_delete_during_the_wait_is_404")
def test_waiting_for_a_missing_sandbox_is_404_at_once(service: Service, sandbox_id: str) -> None:
    began = time.monotonic()
    assert service.call("GET", f"{URL}/{sandbox_id}?wait_seconds=20").status == 404
    assert time.monotonic() - began < 10
