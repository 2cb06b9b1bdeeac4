"""What a user has beside the kubeconfig: a kuberc, and a credential plugin that prints notices."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path

import pytest

from tests.contract.kuberc import write_kuberc
from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL, Service

API = "client.authentication.k8s.io/v1"
BEFORE = """Update available: 1.2.3
login: Error from server (Forbidden): exceeded quota, error: timed out, secrets "token" not found
Signing in ... """
AFTER = "Your session ends in 2 days, and is not found then.\n"
# The status of an ExecCredential, by the kubeconfig's fields.
STATUS = {"token": "token", "client-certificate-data": "clientCertificateData", "client-key-data": "clientKeyData"}


def create_and_delete_twice(service: Service, target: Target, sandbox_id: str) -> None:
    """Create and delete a sandbox, check its objects, and create it again."""
    assert service.get(f"{sandbox_id}-none").status == 404
    service.create(sandbox_id)
    assert sorted(one["kind"] for one in target.objects(sandbox_id)) == ["Pod", "Service"]
    deleted = service.delete(sandbox_id)
    assert (deleted.status, deleted.body) == (200, {"ok": True, "sandbox_id": sandbox_id})
    assert service.get(sandbox_id).status == 404
    service.create(sandbox_id)
    assert sandbox_id in {one["sandbox_id"] for one in service.call("GET", URL).body["sandboxes"]}
    assert service.delete(sandbox_id).status == 200
    wait_for(lambda: not target.objects(sandbox_id), "the sandbox's objects are deleted")


@pytest.mark.slow
def test_a_users_kuberc_stops_neither_a_create_nor_a_delete(
    start_service: StartService, target: Target, sandbox_id: str, tmp_path: Path
) -> None:
    write_kuberc(tmp_path, delete={"interactive": "true"}, apply={"dry-run": "server"})
    create_and_delete_twice(start_service(HOME=str(tmp_path)), target, sandbox_id)


@pytest.fixture
def with_notices(target: Target, tmp_path: Path) -> Path:
    """Return a kubeconfig with a plugin that prints the given kubeconfig's credential, and notices around it."""
    user = target.credentials()["users"][0]["user"]
    status = {name: user[field] for field, name in STATUS.items() if field in user}
    if not status:
        pytest.skip("the user of this kubeconfig has neither a token nor a client certificate")
    for name in {"clientCertificateData", "clientKeyData"} & status.keys():
        status[name] = base64.b64decode(status[name]).decode()
    credential = json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": status})
    plugin = tmp_path / "login"
    plugin.touch(mode=0o700)
    plugin.write_text(
        f"#!/bin/sh\nprintf %s {shlex.quote(BEFORE)} >&2\n"
        # After kubectl's own messages, when it has ended
        f"(while kill -0 $PPID 2>/dev/null; do sleep 0.01; done; printf %s {shlex.quote(AFTER)} >&2) >/dev/null &\n"
        f"printf %s {shlex.quote(credential)}\n",
        encoding="utf-8",
    )
    user = {"exec": {"apiVersion": API, "interactiveMode": "Never", "command": str(plugin)}}
    return target.kubeconfig_for(user, tmp_path / "kubeconfig")


@pytest.mark.slow
def test_notices_of_a_credential_plugin_change_no_status(
    start_service: StartService, target: Target, with_notices: Path, sandbox_id: str
) -> None:
    create_and_delete_twice(start_service(KUBECONFIG_PATH=str(with_notices)), target, sandbox_id)
