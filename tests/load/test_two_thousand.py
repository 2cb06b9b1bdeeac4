"""Two thousand sandboxes and a hundred callers, on devcluster. Run by hand and nightly, and not timed:

./scripts/test.sh tests/load
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.processes import environment, free_port, healthy, processes_with, running
from tests.contract.service import KUBECTL
from tests.waiting import until

COUNT = 2000
CALLERS = 100
URL = "/api/sandboxes"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster with what 2,000 Pods need: no node ports, since there are only 2,768 and each is a socket."""
    with tempfile.TemporaryDirectory() as directory:
        async with Cluster(directory=Path(directory)) as cluster:
            yield cluster


def memory_of(marker: str) -> float:
    """Return the PSS of the service and its children in MB."""
    total = 0
    for pid in processes_with(marker):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


async def by_callers(numbers: range, call: Callable[[int], Awaitable[int]]) -> Counter[int]:
    """Make one call a number, by CALLERS at once; count the statuses."""
    statuses: Counter[int] = Counter()
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            statuses[await call(number)] += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return statuses


@pytest.mark.timeout(1800)
async def test_none_lost_none_orphaned_no_5xx_and_flat_memory(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        KUBECTL=str(KUBECTL),
        PORT=str(port),
        SANDBOX_SERVICE_TYPE="ClusterIP",
        KUBECTL_MAX_WAITING="1000",
    )
    program = (sys.executable, str(ROOT / "provisioner.py"))
    async with running(*program, environ=environ, log=tmp_path / "log"):
        await until(healthy(port), seconds=60)
        connector = aiohttp.TCPConnector(limit=CALLERS)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:

            async def create(number: int) -> int:
                async with session.post(URL, json={"sandbox_id": f"load-{number}"}) as response:
                    return response.status

            async def get(number: int) -> int:
                async with session.get(f"{URL}/load-{number}") as response:
                    return response.status

            async def delete(number: int) -> int:
                async with session.delete(f"{URL}/load-{number}") as response:
                    return response.status

            async def listed() -> int:
                async with session.get(URL) as response:
                    assert response.status == 200
                    return int((await response.json())["count"])

            after_rounds = []
            for _ in range(2):
                assert await by_callers(range(COUNT), create) == {200: COUNT}
                assert await by_callers(range(COUNT), get) == {200: COUNT}
                assert await listed() == COUNT
                assert len(cluster.objects("Pod", "deer-flow")) == COUNT
                assert len(cluster.objects("Service", "deer-flow")) == COUNT
                assert await by_callers(range(COUNT), delete) == {200: COUNT}
                assert await listed() == 0
                await until(lambda: not cluster.objects("Pod", "deer-flow"), seconds=60)
                assert cluster.objects("Service", "deer-flow") == []
                after_rounds.append(memory_of(str(tmp_path)))
            first, second = after_rounds
            assert second < first * 1.2 + 20, f"memory grew from {first:.0f} to {second:.0f} MB"
    assert "Traceback" not in (tmp_path / "log").read_text()
    print(f"memory after the rounds: {first:.0f} MB, {second:.0f} MB; {os.cpu_count()} processors")  # noqa: T201
