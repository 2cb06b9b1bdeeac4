"""Idempotent creates, recreation of missing objects, and owners."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL, Service


def uids(target: Target, sandbox_id: str) -> dict[str, str]:
    return {obj["kind"]: obj["metadata"]["uid"] for obj in target.objects(sandbox_id)}


@pytest.mark.repeats("tests/contract/test_healing.py::test_eight_concurrent_creates_from_two_processes_make_one_pod")
def test_concurrent_creates_from_two_processes_make_one_sandbox(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    services = [start_service(), start_service()]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: services[n % 2].create(sandbox_id), range(8)))
    assert len({answer["sandbox_url"] for answer in answers}) == 1
    assert len(target.objects(sandbox_id)) == 2


@pytest.mark.repeats("tests/contract/test_batching_and_pool.py::test_of_two_owners_of_one_id_in_a_batch_one_gets_409")
def test_concurrent_creates_by_two_owners_are_one_200_and_one_409(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    services = [start_service(), start_service()]

    def create(n: int) -> int:
        return services[n].call("POST", URL, {"sandbox_id": sandbox_id, "thread_id": f"t{n}"}).status

    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(create, range(2)))
    assert sorted(statuses) == [200, 409]
    winner = statuses.index(200)
    assert create(winner) == 200
    assert create(1 - winner) == 409
    assert len(target.objects(sandbox_id)) == 2


@pytest.mark.repeats("tests/contract/test_healing.py::test_a_create_restores_a_missing_pod")
def test_a_missing_pod_is_recreated(service: Service, target: Target, sandbox_id: str) -> None:
    made = service.create(sandbox_id)
    before = uids(target, sandbox_id)
    target.kubectl("delete", "pod", f"sandbox-{sandbox_id}", "--timeout=60s")
    assert service.get(sandbox_id).status == 404
    assert service.create(sandbox_id)["sandbox_url"] == made["sandbox_url"]
    after = uids(target, sandbox_id)
    assert after["Pod"] != before["Pod"]
    assert after["Service"] == before["Service"]


@pytest.mark.repeats("tests/contract/test_healing.py::test_a_create_restores_a_missing_service")
def test_a_missing_service_is_recreated(service: Service, target: Target, sandbox_id: str) -> None:
    service.create(sandbox_id)
    before = uids(target, sandbox_id)
    target.kubectl("delete", "service", f"sandbox-{sandbox_id}-svc")
    assert service.get(sandbox_id).status == 404
    service.create(sandbox_id)
    assert uids(target, sandbox_id)["Pod"] == before["Pod"]
    assert service.get(sandbox_id).status == 200


@pytest.mark.repeats("tests/contract/test_healing.py::test_a_create_waits_for_a_terminating_pod_and_replaces_it")
def test_a_terminating_pod_is_replaced_by_a_new_pod(service: Service, target: Target, sandbox_id: str) -> None:
    service.create(sandbox_id)
    wait_for(lambda: service.is_running(sandbox_id), "the sandbox is Running")
    before = uids(target, sandbox_id)
    service.delete(sandbox_id)
    service.create(sandbox_id)
    assert uids(target, sandbox_id)["Pod"] != before["Pod"]
    assert service.get(sandbox_id).status == 200


@pytest.mark.repeats("tests/contract/test_healing.py::test_a_new_default_image_does_not_change_a_running_sandbox")
def test_another_image_setting_does_not_change_an_existing_sandbox(
    service: Service, start_service: StartService, target: Target, sandbox_id: str
) -> None:
    made = service.create(sandbox_id)
    before = uids(target, sandbox_id)
    other = start_service(SANDBOX_IMAGE="another.example/image:2")
    assert other.create(sandbox_id)["sandbox_url"] == made["sandbox_url"]
    assert uids(target, sandbox_id) == before
    (pod,) = [obj for obj in target.objects(sandbox_id) if obj["kind"] == "Pod"]
    assert pod["spec"]["containers"][0]["image"] != "another.example/image:2"
