"""Objects that the API server refuses: by a quota, for a service account, and for a variable that is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL
from tests.e2e.templates import write_template

MANY = 50
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}


def test_fifty_creates_at_once_that_a_quota_refuses_are_all_429(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    target.needs("quotas")
    service = start_service()
    target.kubectl("apply", "-f", "-", stdin=json.dumps(QUOTA))
    ids = [f"{sandbox_id}-{number}" for number in range(MANY)]
    try:
        wait_for(
            lambda: "hard" in json.loads(target.kubectl("get", "resourcequota/no-pods", "-o", "json"))["status"],
            "the quota is active",
        )
        with ThreadPoolExecutor(MANY) as pool:
            answers = list(pool.map(lambda one: service.call("POST", URL, {"sandbox_id": one}), ids))
        assert Counter(answer.status for answer in answers) == {429: MANY}
        assert all(answer.headers["Retry-After"] for answer in answers)
        wait_for(lambda: not any(target.objects(one) for one in ids), "the objects of the creates are deleted")
    finally:
        target.kubectl("delete", "resourcequota/no-pods")


@pytest.mark.slow
def test_a_missing_service_account_of_a_template_is_502_and_not_tried_again(
    start_service: StartService, target: Target, sandbox_id: str, tmp_path: Path
) -> None:
    templates = write_template(tmp_path, "robot", pod={"serviceAccountName": "e2e-robot"})
    service = start_service(SANDBOX_TEMPLATES_DIR=templates)
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id, "template": "robot"})
    detail = "There is no service account e2e-robot, which the template asks for"
    assert (answer.status, answer.body, answer.headers["Retry-After"]) == (502, {"detail": detail}, None)
    assert target.objects(sandbox_id) == []
    service.create(sandbox_id)


@pytest.mark.slow
def test_a_variable_that_a_template_has_twice_stops_the_start(target: Target, tmp_path: Path) -> None:
    env = [{"name": "E2E", "value": "1"}, {"name": "E2E", "value": "2"}]
    templates = write_template(tmp_path / "templates", "twice", env=env)
    environ = target.environ(SANDBOX_TEMPLATES_DIR=templates, HOME=str(tmp_path), TMPDIR=str(tmp_path))
    command = [sys.executable, str(ROOT / "provisioner.py")]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert (
        'The sandbox has name="E2E" twice in spec.containers[name="sandbox"].env. Its name is twice.' in result.stderr
    )
    assert "Traceback" not in result.stderr
