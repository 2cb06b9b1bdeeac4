"""A credential plugin that prints notices on kubectl's stderr, with a real kubectl: no answer changes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from devcluster import Cluster
from tests.contract.service import URL, StartProvisioner

BEFORE = (
    "Update available: 1.2.3",
    'login: Error from server (Forbidden): exceeded quota, error: timed out, secrets "token" not found',
    "error: the cache is stale",
    "* what is new: see https://example.org",
)
AFTER = ("Your session ends in 2 days, and is not found then.", "error: i/o timeout while telling (Unauthorized)")


def plugin(token: str, *, before: str, after: str) -> str:
    """Return a plugin that prints `before` at once, and `after` when kubectl has ended."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    later = f"while kill -0 $PPID 2>/dev/null; do sleep 0.01; done; printf %s {shlex.quote(after)} >&2"
    return (
        "#!/bin/sh\n"
        f"printf %s {shlex.quote(before)} >&2\n"
        f"( {later} ) >/dev/null &\n"
        f"printf %s {shlex.quote(json.dumps(credential))}\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("\n".join([*BEFORE, ""]), "", marks=pytest.mark.slow),
        pytest.param("", "\n".join([*AFTER, ""]), marks=pytest.mark.slow),
        ("Logging in ... 50%\rLogging in ... 100%\r", ""),
        ("Logging in ... ", "\n".join([*AFTER, ""])),
    ],
    ids=["before", "after", "progress", "without a line end"],
)
async def test_notices_of_a_plugin_change_no_status(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, before: str, after: str
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    login, path = tmp_path / "login", tmp_path / "kubeconfig"
    login.write_text(plugin(config["users"][0]["user"]["token"], before=before, after=after))
    login.chmod(0o755)
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": str(login),
    }
    config["users"][0]["user"] = {"exec": exec_}
    path.write_text(yaml.safe_dump(config))
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), LIVE_VIEW="false", REAPER_INTERVAL="0")
    statuses = [
        (await provisioner.get(f"{URL}/none")).status,
        (await provisioner.delete(f"{URL}/none")).status,
        (await provisioner.post(URL, json={"sandbox_id": "a"})).status,
        (await provisioner.get(f"{URL}/a")).status,
        (await provisioner.delete(f"{URL}/a")).status,
        (await provisioner.get(f"{URL}/a")).status,
        (await provisioner.post(URL, json={"sandbox_id": "a"})).status,
        (await provisioner.post(URL, json={"sandbox_id": "b", "labels": {"a": "x" * 99}})).status,
    ]
    assert statuses == [404, 200, 200, 200, 200, 404, 200, 422]
