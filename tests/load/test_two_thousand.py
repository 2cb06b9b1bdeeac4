"""Two thousand sandboxes and a hundred callers on devcluster; measures memory, not time.

Runs nightly, and by hand: `./scripts/test.sh tests/load`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.processes import environment, free_port, healthy, processes_with, running
from tests.contract.service import KUBECTL
from tests.image import image_environment
from tests.waiting import until

COUNT = 2000
CALLERS = 100
URL = "/api/sandboxes"
ROUNDS = 3

# Maximum ratio of the memory after a round to that after the previous round. The release of pages varies.
FLAT = 1.1
# Maximum memory of the service after 2,000 sandboxes; before the first it is 50.
MOST_MB = 130
# Maximum memory of all waiting processes: KUBECTL_MAX_PROCESSES of them, each about 15 MB.
MOST_WAITING_MB = 8 * 20


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster for 2,000 Pods; without node ports, of which there are only 2,768, each with a socket."""
    with tempfile.TemporaryDirectory() as directory:
        async with Cluster(directory=Path(directory)) as cluster:
            yield cluster


@dataclass(frozen=True)
class Memory:
    """PSS in MB by kind of process. The service and its watches live for all rounds; waiting processes are replaced."""

    service: float
    watches: float
    waiting: float

    def __str__(self) -> str:
        return f"{self.service:.0f} + {self.watches:.0f} + {self.waiting:.0f}"


def memory_of(marker: str) -> Memory:
    """Return the memory of the service, its two watches, and its other children."""
    kinds = {"service": 0.0, "watches": 0.0, "waiting": 0.0}
    for pid in processes_with(marker):
        process = Path(f"/proc/{pid}")
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if any(part.endswith(b"provisioner.py") for part in command):
            kind = "service"
        else:
            kind = "watches" if any(b"watch=1" in part for part in command) else "waiting"
        kinds[kind] += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
    return Memory(**kinds)


async def by_callers(numbers: range, call: Callable[[int], Awaitable[int]]) -> Counter[int]:
    """Make one call per number, with CALLERS in parallel; return the number of responses by status."""
    statuses: Counter[int] = Counter()
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            statuses[await call(number)] += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return statuses


@pytest.mark.timeout(1800)
async def test_load_loses_no_sandbox_and_keeps_memory_flat(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        KUBECTL=str(KUBECTL),
        PORT=str(port),
        SANDBOX_SERVICE_TYPE="ClusterIP",
        KUBECTL_MAX_WAITING="1000",
        **{name: value for name, value in image_environment().items() if name.startswith("MALLOC_")},
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

            rounds = []
            for _ in range(ROUNDS):
                assert await by_callers(range(COUNT), create) == {200: COUNT}
                assert await by_callers(range(COUNT), get) == {200: COUNT}
                assert await listed() == COUNT
                assert len(cluster.objects("Pod", "deer-flow")) == COUNT
                assert len(cluster.objects("Service", "deer-flow")) == COUNT
                assert await by_callers(range(COUNT), delete) == {200: COUNT}
                assert await listed() == 0
                await until(lambda: not cluster.objects("Pod", "deer-flow"), seconds=60)
                assert cluster.objects("Service", "deer-flow") == []
                rounds.append(memory_of(str(tmp_path)))
                print(f"memory after a round: {rounds[-1]} MB; {os.cpu_count()} processors")  # noqa: T201
            # The first round warms up; later rounds are flat.
            for before, after in itertools.pairwise(rounds[1:]):
                assert after.service < before.service * FLAT, f"the service: {rounds}"
            # Go releases memory at any time (39, 33, 40 MB): the last round is compared with the highest before it.
            assert rounds[-1].watches < max(one.watches for one in rounds[:-1]) * FLAT, f"the watches: {rounds}"
            assert max(one.waiting for one in rounds) < MOST_WAITING_MB, f"waiting processes: {rounds}"
            # The first round may lack the cost of a list of all sandboxes, hence the margin.
            assert rounds[-1].service < rounds[0].service * 1.2, f"the service: {rounds}"
            assert rounds[-1].service < MOST_MB, f"the service: {rounds}"
    assert "Traceback" not in (tmp_path / "log").read_text()
