"""scripts/run.sh and scripts/smoke.sh, on devcluster."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes.kubectl.config import SERVICE_ACCOUNT
from tests.conftest import ROOT
from tests.contract.processes import (
    environment,
    free_port,
    healthy,
    processes_with,
    run,
    running,
    smoke,
)
from tests.contract.service import until
from tests.kubectl import Kubectl


@pytest.mark.slow
@pytest.mark.skipif(
    (SERVICE_ACCOUNT / "token").exists(), reason="in a Pod run.sh uses that Pod's cluster and does not start devcluster"
)
async def test_run_sh_serves_on_devcluster_and_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    environ = environment(tmp_path, LISTEN_PORT=str(port), PYTHON=sys.executable)
    async with running(str(ROOT / "scripts" / "run.sh"), environ=environ, log=log) as process:
        await until(healthy(port), seconds=250)  # run.sh may have to install first
        smoke = await run(str(ROOT / "scripts" / "smoke.sh"), f"http://127.0.0.1:{port}", environ=environ)
        assert smoke[0] == 0, smoke
        assert "smoke: all is well" in smoke[1]
        assert len(processes_with(str(tmp_path))) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert processes_with(str(tmp_path)) == []
    assert "IT IS NOT KUBERNETES" in log.read_text()
    assert "Traceback" not in log.read_text()
    left = {path.name for path in tmp_path.iterdir()} - {"log", ".cache", "cluster"}
    assert left == set()


@pytest.mark.slow
async def test_smoke_sh_succeeds_with_a_key_and_kubectl(
    service_url: str, cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubeconfig = str(kubectl.kubeconfig)
    returncode, stdout, stderr = await smoke(
        service_url, "--kubectl", tmp_path=tmp_path, API_KEY="k3y", KUBECONFIG=kubeconfig
    )
    assert returncode == 0, stderr
    assert "pod/sandbox-smoke-" in stdout
    assert "service/sandbox-smoke-" in stdout
    assert stdout.splitlines()[-1] == "smoke: all is well"

    async def is_deleted() -> bool:
        return cluster.objects("Pod") == []

    await until(is_deleted)


@pytest.mark.slow
async def test_smoke_sh_reports_failures_and_cleans_up(service_url: str, cluster: Cluster, tmp_path: Path) -> None:
    returncode, _, stderr = await smoke(service_url, tmp_path=tmp_path, API_KEY="wrong")
    assert returncode == 1
    assert "smoke: the create answered 401: set API_KEY" in stderr

    cluster.server_takes(3600)
    returncode, _, stderr = await smoke(service_url, tmp_path=tmp_path, API_KEY="k3y", SMOKE_TIMEOUT="1")
    assert returncode == 1
    assert "/v1/sandbox did not answer within 1 s" in stderr

    async def is_deleted() -> bool:
        return cluster.objects("Pod") == []

    await until(is_deleted)


async def test_smoke_sh_without_a_service_fails(tmp_path: Path) -> None:
    returncode, _, stderr = await smoke(f"http://127.0.0.1:{free_port()}", tmp_path=tmp_path)
    assert returncode == 1
    assert "smoke: GET /health got no answer" in stderr


@pytest.mark.slow
async def test_run_sh_serves_two_stand_ins_and_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    environ = environment(tmp_path, LISTEN_PORT=str(port), PYTHON=sys.executable)
    made = ROOT / ".dev-clusters"
    async with running(str(ROOT / "scripts" / "run.sh"), "--clusters", "2", environ=environ, log=log) as process:
        await until(healthy(port), seconds=250)  # run.sh may have to install first
        assert (made / "clusters.yaml").read_text().count("- name: dev-") == 2
        async with aiohttp.ClientSession() as session:

            async def are_ready() -> bool:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    checks = (await response.json())["checks"]
                    return bool(checks == {"dev-1": "ok", "dev-2": "ok"})

            await until(are_ready)
        smoke = await run(str(ROOT / "scripts" / "smoke.sh"), f"http://127.0.0.1:{port}", environ=environ)
        assert smoke[0] == 0, smoke
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert processes_with(str(tmp_path)) == []
    assert "This runs on 2 clusters of devcluster" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert {path.name for path in made.iterdir()} == {"lock"}
