"""Expiry of sandboxes: TTL, renewal, idle timeout, and the reaper."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL, Service


def seconds_left(answer: dict[str, object]) -> float:
    return (datetime.fromisoformat(str(answer["expires_at"])) - datetime.now(UTC)).total_seconds()


@pytest.mark.repeats(
    "tests/contract/test_expiry_and_keepalive.py::test_a_sandbox_reports_its_expiry_and_is_deleted_then"
)
def test_an_expired_sandbox_is_deleted_and_others_are_kept(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    service = start_service(REAPER_INTERVAL="1")
    service.create(f"{sandbox_id}-stays")
    answer = service.create(sandbox_id, ttl_seconds=3)
    assert 0 < seconds_left(answer) <= 4
    wait_for(lambda: service.get(sandbox_id).status == 404 and not target.objects(sandbox_id), "the sandbox is deleted")
    assert service.get(f"{sandbox_id}-stays").status == 200
    service.delete(f"{sandbox_id}-stays")


@pytest.mark.repeats(
    "tests/contract/test_expiry_and_keepalive.py::test_a_renewal_extends_shortens_or_disables_the_expiry"
)
def test_a_renewal_is_visible_to_another_replica(start_service: StartService, target: Target, sandbox_id: str) -> None:
    one, other = start_service(), start_service()
    one.create(sandbox_id, ttl_seconds=600)
    before = {obj["kind"]: obj["metadata"]["uid"] for obj in target.objects(sandbox_id)}
    renewed = one.call("POST", f"{URL}/{sandbox_id}/renew", {"ttl_seconds": 3600})
    assert renewed.status == 200
    assert 3500 < seconds_left(renewed.body) <= 3601
    wait_for(
        lambda: other.get(sandbox_id).body["expires_at"] == renewed.body["expires_at"],
        "the other replica knows the new expiry",
    )
    assert {obj["kind"]: obj["metadata"]["uid"] for obj in target.objects(sandbox_id)} == before
    assert one.create(sandbox_id, ttl_seconds=5)["expires_at"] == renewed.body["expires_at"]


@pytest.mark.repeats(
    "tests/contract/test_expiry_and_keepalive.py::test_touches_keep_a_sandbox_with_a_short_idle_timeout_alive"
)
def test_touch_keeps_a_sandbox_alive_until_the_idle_timeout(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    service = start_service(REAPER_INTERVAL="0.5")
    made = service.create(sandbox_id, idle_timeout_seconds=4)
    first_end = datetime.fromisoformat(made["expires_at"])

    def used_after_its_first_expiry() -> bool:
        assert service.call("POST", f"{URL}/{sandbox_id}/touch").status == 200
        return (datetime.now(UTC) - first_end).total_seconds() > 2

    wait_for(used_after_its_first_expiry, "the sandbox is in use after its first expiry")
    wait_for(lambda: not target.objects(sandbox_id), "the sandbox is deleted")


@pytest.mark.repeats("tests/contract/test_reaper.py::test_a_dry_run_prints_due_sandboxes_and_deletes_none")
def test_the_reap_command_reports_and_deletes_expired_sandboxes(
    service: Service, target: Target, sandbox_id: str
) -> None:
    service.create(sandbox_id, ttl_seconds=1)

    def reap(*arguments: str) -> str:
        command = [sys.executable, str(ROOT / "provisioner.py"), "reap", *arguments]
        return subprocess.run(command, env=service.environ, check=True, capture_output=True, text=True).stdout

    wait_for(lambda: f"{sandbox_id}: it expired at " in reap("--dry-run"), "the sandbox has expired")
    # If the kubelet updates the status meanwhile, the delete's precondition fails and the next round retries.
    wait_for(lambda: f"{sandbox_id}: it expired at " in reap(), "the reaper deletes the sandbox")
    wait_for(lambda: not target.objects(sandbox_id), "the sandbox is deleted")
    assert reap() == ""
