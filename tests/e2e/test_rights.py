"""A Role without `patch`: of the cluster's RBAC, or of a devcluster with restricted rights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import StartService, Target
from tests.e2e.service import URL

VERBS = ["create", "delete", "get", "list", "watch"]
RULES = [
    {"apiGroups": [""], "resources": ["pods", "services"], "verbs": VERBS},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
NAME = "without-patch"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
def kubeconfig(target: Target, tmp_path: Path) -> Iterator[Path]:
    """Return a kubeconfig for a user who has only RULES in the namespace."""
    if target.is_real:
        target.make_namespace()
        account = {"kind": "ServiceAccount", "name": NAME}
        objects = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}},
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": NAME}, "rules": RULES},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": NAME},
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": NAME},
                "subjects": [{**account, "namespace": target.namespace}],
            },
        ]
        target.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        token = target.kubectl("create", "token", NAME).strip()
        yield target.kubeconfig_for({"token": token}, tmp_path / "kubeconfig")
        return
    command = [sys.executable, "-m", "tests.e2e.restricted", target.namespace, json.dumps(RULES)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Path(process.stdout.readline().strip())
        finally:
            process.terminate()


@pytest.mark.slow
def test_without_patch_a_sandbox_is_created_listed_and_deleted_but_not_renewed(
    start_service: StartService, kubeconfig: Path, sandbox_id: str
) -> None:
    service = start_service(KUBECONFIG_PATH=str(kubeconfig))
    made = service.create(sandbox_id, ttl_seconds=3600)
    assert service.create(sandbox_id, ttl_seconds=3600)["sandbox_url"] == made["sandbox_url"]
    assert service.get(sandbox_id).status == 200
    listed = service.call("GET", URL).body["sandboxes"]
    assert sandbox_id in {sandbox["sandbox_id"] for sandbox in listed}
    renewed = service.call("POST", f"{URL}/{sandbox_id}/renew", {"ttl_seconds": 7200})
    assert (renewed.status, renewed.body) == (
        502,
        {
            "detail": "The provisioner lacks the right to patch pods in the cluster, which renewing, touching and "
            "adopting a sandbox need"
        },
    )
    assert service.get(sandbox_id).body["expires_at"] == made["expires_at"]
    assert service.delete(sandbox_id).status == 200
    assert service.get(sandbox_id).status == 404
