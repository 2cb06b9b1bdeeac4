"""SIGTERM during the start, and SIGKILL during a create."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import kmock
import pytest

from devcluster import Cluster
from tests.contract.processes import (
    PROVISIONER,
    environment,
    free_port,
    healthy,
    kill_each,
    processes_with,
    running,
)
from tests.contract.service import URL, StartProvisioner, create, until


async def test_sigterm_during_the_start_ends_the_service_and_its_kubectl(tmp_path: Path) -> None:
    slow = tmp_path / "kubectl"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    environ = environment(tmp_path, KUBECTL=str(slow), KUBECONFIG_PATH=str(tmp_path / "none"))
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log") as process:

        async def started() -> bool:
            return (tmp_path / "pid").exists()

        await until(started)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_a_create_completes_a_sandbox_whose_creator_was_killed_after_the_pod(
    cluster: Cluster, tmp_path: Path, start_provisioner: StartProvisioner
) -> None:
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log"):
        await until(healthy(port))
        asked, held = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            asked.set()
            await held.wait()

        responses = iter([hold()])
        cluster.kmock["PATCH", kmock.resource("v1/services")] << (lambda: next(responses, NotImplemented))
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/api/sandboxes"
            request = asyncio.create_task(session.post(url, json={"sandbox_id": "a"}))
            await asked.wait()  # the Pod is made
            kill_each(processes_with(str(tmp_path)))
            with pytest.raises(aiohttp.ClientError):
                await request
    held.set()
    assert cluster.objects("Service") == []
    (incomplete,) = cluster.objects("Pod")

    other = await start_provisioner()
    assert (await other.get(f"{URL}/a")).status == 404
    await create(other)
    assert (await other.get(f"{URL}/a")).status == 200
    assert [pod["metadata"]["uid"] for pod in cluster.objects("Pod")] == [incomplete["metadata"]["uid"]]
