"""A credential plugin that waits for a person: the answer names it, and the log has what it said, masked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes.deadlines import Deadlines
from sandboxes.kubectl import plugins
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.config import prepare
from sandboxes.ops.preflight import check_cluster
from sandboxes.settings import Settings
from tests.contract.service import KUBECTL, URL, StartProvisioner
from tests.contract.test_check import check
from tests.marker import MARKER

pytestmark = pytest.mark.slow

PROMPT = "To sign in, use a web browser to open the page https://login.example/device"
WAITS = "The provisioner's credential plugin own-login did not answer in time"


def with_plugin(cluster: Cluster, path: Path, *, says: str = PROMPT) -> str:
    """Write a kubeconfig whose plugin says something on stderr and waits for ever."""
    command = path.parent / "own-login"
    command.write_text(f'#!/bin/sh\n[ -z "{says}" ] || echo "{says} with code $SECRET" >&2\nsleep 600\n')
    command.chmod(0o755)
    config: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "interactiveMode": "Never",
            "command": str(command),
            "env": [{"name": "SECRET", "value": MARKER}],
        }
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.deadlines(read=1.5, delete=1.5, create=6.0, batch_limit=1.5, kubectl_call=1.5, ready=1.5, diagnosis=1.0)
@pytest.mark.parametrize("says", [PROMPT, ""])
async def test_each_request_names_the_plugin_and_the_log_has_its_prompt(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    says: str,
) -> None:
    path = tmp_path / "config"
    path.write_text(cluster.kubeconfig.read_text())
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), LIVE_VIEW="false", REAPER_INTERVAL="0")
    with_plugin(cluster, path, says=says)
    for response in (
        await provisioner.get(f"{URL}/a"),
        await provisioner.get(URL),
        await provisioner.delete(f"{URL}/a"),
        await provisioner.post(URL, json={"sandbox_id": "a"}),
    ):
        assert (response.status, (await response.json())["detail"]) == (504, WAITS)
    ready = await provisioner.get("/readyz")
    assert (ready.status, (await ready.json())["checks"]["api_server"]) == (503, WAITS)
    if says:
        assert f"It said: {PROMPT} with code (hidden)" in caplog.text
    assert "kubectl was ended while it waited for its credential plugin" in caplog.text


@pytest.mark.deadlines(read=1.0, kubectl_call=1.0)
@pytest.mark.parametrize("is_wrapped", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_cluster_that_hangs_is_not_the_plugins_fault(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, is_wrapped: bool
) -> None:
    """Its plugin has answered. A wrapper's child is kubectl itself."""
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{KUBECTL} "$@"\n')
    wrapper.chmod(0o755)
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    path = tmp_path / "config"
    with_plugin(cluster, path)
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    (tmp_path / "credential").write_text(json.dumps(credential))
    (tmp_path / "own-login").write_text(f'#!/bin/sh\necho "a notice" >&2\ncat {tmp_path}/credential\n')
    provisioner = await start_provisioner(
        KUBECONFIG_PATH=str(path),
        LIVE_VIEW="false",
        REAPER_INTERVAL="0",
        KUBECTL=str(wrapper if is_wrapped else KUBECTL),
    )
    assert (await provisioner.get(URL)).status == 200
    cluster.faults.hang(verb="list")
    response = await provisioner.get(URL)
    assert (response.status, (await response.json())["detail"]) == (504, "The cluster did not answer in time")


@pytest.mark.deadlines(read=1.5, kubectl_call=1.5)
async def test_where_processes_can_not_be_listed_the_prompt_tells_that_the_plugin_waits(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "PROC", tmp_path / "none")
    path = tmp_path / "config"
    path.write_text(cluster.kubeconfig.read_text())
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), LIVE_VIEW="false", REAPER_INTERVAL="0")
    with_plugin(cluster, path)
    response = await provisioner.get(URL)
    assert (response.status, (await response.json())["detail"]) == (504, WAITS)


async def test_the_start_names_it_and_serves(
    make_settings: Callable[..., Settings], cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A person may sign in later."""
    path = with_plugin(cluster, tmp_path / "config")
    settings = make_settings(KUBECONFIG_PATH=path, KUBECTL=KUBECTL)
    connection = await prepare(settings, {"PATH": "/usr/bin:/bin"}, tmp_path)
    runner = connection.runner
    kubectl = Kubectl(runner, max_processes=1, max_waiting=1, plugins=runner.plugins)
    await check_cluster(kubectl, {}, settings, Deadlines(preflight=1.0))
    assert f"{WAITS}. Serving anyway: requests get 504 until it does." in caplog.text


@pytest.mark.slow
async def test_check_names_it_and_shows_its_prompt(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=with_plugin(cluster, tmp_path / "own"))
    assert checked.returncode == 2
    assert checked.of("API server") == f"FAIL          API server: {WAITS}"
    assert checked.lines[-1] == f"{PROMPT} with code (hidden)"
    assert not any("certificate" in line for line in checked.lines)
