"""Two replicas working on the same sandboxes, and SIGTERM under load."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import re
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.ledger import NAMESPACE, NO_LOSSES, Ledger
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, processes_with, running
from tests.contract.service import URL, StartProvisioner, until
from tests.metrics import samples, value

pytestmark = pytest.mark.slow

LOAD_SECONDS = 5.0

# After SIGTERM: running requests (server.py), then pending rollbacks (rollback.py).
GRACE_SECONDS = 28 + 12


async def test_two_replicas_on_the_same_sandboxes_lose_nothing_and_agree(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    replicas = [await start_provisioner(REAPER_INTERVAL="0.1", REAPER_GRACE="1") for _ in range(2)]
    ledger = Ledger(cluster)
    ids = [f"r{number}" for number in range(30)]
    end = time.monotonic() + LOAD_SECONDS

    def goes_on() -> bool:
        """Run longer on a busy machine, until enough calls succeeded."""
        return time.monotonic() < end or ledger.answered("create") < 20 or ledger.answered("delete") < 5

    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(str(one.client.make_url("/")), connector=aiohttp.TCPConnector(limit=0))
            )
            for one in replicas
        ]

        async def call(caller: int) -> None:
            choice = random.Random(caller)  # noqa: S311 - no secret
            while goes_on():
                session, sandbox_id = choice.choice(sessions), choice.choice(ids)
                verb = choice.choice([ledger.create, ledger.create, ledger.delete])
                await verb(session, sandbox_id)

        await asyncio.gather(*(call(caller) for caller in range(20)))
        # Both create every second one again, so it must exist.
        again = [ledger.create(session, one) for one in ids[::2] for session in sessions]
        assert set(await asyncio.gather(*again)) == {200}

        assert await ledger.losses(replicas[0].client.app[SANDBOX_SERVICE].reaper) == NO_LOSSES
        assert await replicas[1].client.app[SANDBOX_SERVICE].reaper.round(dry_run=True) == []

        async def lists() -> list[dict[str, str]]:
            answers = [await (await session.get(URL)).json() for session in sessions]
            return [{one["sandbox_id"]: one["sandbox_url"] for one in answer["sandboxes"]} for answer in answers]

        def there() -> set[str]:
            return {pod["metadata"]["labels"]["sandbox-id"] for pod in cluster.objects("Pod", NAMESPACE)}

        async def agree() -> bool:
            first, second = await lists()
            return first == second and set(first) == there()

        await until(agree)
        assert set(ids[::2]) <= there()
        for one in ids:
            answers = [await session.get(f"{URL}/{one}") for session in sessions]
            assert {answer.status for answer in answers} == ({200} if one in there() else {404})


REAPED = "provisioner_reaped_total"

TTL_SECONDS = 1
IDLE_SECONDS = 3


@dataclass
class ExpiringSandboxes:
    """Expiring sandboxes of two replicas: their callers, and the expected results."""

    sessions: list[aiohttp.ClientSession]
    end: float
    # Creates by id, and the ids that were renewed and stay.
    made: Counter[str] = field(default_factory=Counter)
    renewed: set[str] = field(default_factory=set)

    async def expire(self, sandbox_id: str) -> None:
        """Create it again each time that it has expired."""
        while time.monotonic() < self.end:
            await self._make(sandbox_id, ttl_seconds=TTL_SECONDS)
            await until(lambda: self._is_gone(sandbox_id))

    async def renew(self, caller: int) -> None:
        """Renew one sandbox after another, around the time of its expiry."""
        choice = random.Random(caller)  # noqa: S311 - no secret
        for number in itertools.count():
            if time.monotonic() >= self.end:
                return
            sandbox_id = f"renewed{caller}-{number}"
            await self._make(sandbox_id, ttl_seconds=TTL_SECONDS)
            await asyncio.sleep(TTL_SECONDS * choice.uniform(0.8, 1.3))
            status = await self._post(f"{URL}/{sandbox_id}/renew", ttl_seconds=3600)
            assert status in {200, 404}
            if status == 200:
                self.renewed.add(sandbox_id)

    async def use(self, sandbox_id: str) -> None:
        """Touch it all the time, on both replicas; assert that it exists as long as it is used in time."""
        used = -math.inf
        while (began := time.monotonic()) < self.end:
            status = await self._post(f"{URL}/{sandbox_id}/touch")
            assert status in {200, 404}
            if status == 200:
                used = began
                continue
            assert time.monotonic() - used > IDLE_SECONDS
            await self._make(sandbox_id, idle_timeout_seconds=IDLE_SECONDS)
            used = began - 1  # creationTimestamp has whole seconds, and counts as the first use

    async def _make(self, sandbox_id: str, **fields: int) -> None:
        assert await self._post(URL, sandbox_id=sandbox_id, **fields) == 200
        self.made[sandbox_id] += 1

    async def _post(self, url: str, **body: object) -> int:
        session = random.choice(self.sessions)  # noqa: S311 - no secret
        async with session.post(url, json=body) as response:
            return response.status

    async def _is_gone(self, sandbox_id: str) -> bool:
        async with random.choice(self.sessions).get(f"{URL}/{sandbox_id}") as response:  # noqa: S311 - no secret
            return response.status == 404


async def test_two_replicas_reap_each_due_sandbox_once_and_no_other(
    start_provisioner: StartProvisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sandboxes.service.reaper")
    replicas = [await start_provisioner(REAPER_INTERVAL="0.1", REAPER_GRACE="2") for _ in range(2)]
    ledger = Ledger(cluster)
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(str(one.client.make_url("/")), connector=aiohttp.TCPConnector(limit=0))
            )
            for one in replicas
        ]
        expiring = ExpiringSandboxes(sessions, end=time.monotonic() + LOAD_SECONDS)

        async def call(caller: int) -> None:
            choice = random.Random(caller)  # noqa: S311 - no secret
            while time.monotonic() < expiring.end:
                verb = choice.choice([ledger.create, ledger.create, ledger.delete])
                await verb(choice.choice(sessions), f"r{choice.randrange(10)}")

        await asyncio.gather(
            *(expiring.expire(f"expired{number}") for number in range(10)),
            *(expiring.renew(caller) for caller in range(5)),
            *(expiring.use(f"used{number}") for number in range(3)),
            *(call(caller) for caller in range(5)),
        )
        assert len(expiring.renewed) >= 1
        assert sum(expiring.made.values()) - len(expiring.renewed) >= 10

        def there() -> set[str]:
            return {pod["metadata"]["labels"]["sandbox-id"] for pod in cluster.objects("Pod", NAMESPACE)}

        await until(lambda: there() & expiring.made.keys() == expiring.renewed, seconds=IDLE_SECONDS + 60)

        async def both_agree() -> bool:
            answers = {
                one: [(await session.get(f"{URL}/{one}")).status for session in sessions] for one in expiring.made
            }
            return answers == {one: [200 if one in expiring.renewed else 404] * 2 for one in expiring.made}

        await until(both_agree)
        due = expiring.made - Counter(expiring.renewed)
        logged = re.findall(r"sandbox (\S+): Pod deleted by the reaper: (?:it expired|it was not used)", caplog.text)
        assert Counter(logged) == due
        metrics = [dict(samples(await (await session.get("/metrics")).text())) for session in sessions]
        counted = [value(one, REAPED, reason=reason) for one in metrics for reason in ("expired", "idle")]
        assert sum(counted) == due.total()

        await asyncio.gather(*(sessions[0].delete(f"{URL}/{one}") for one in expiring.renewed))
        assert await ledger.losses(replicas[0].client.app[SANDBOX_SERVICE].reaper) == NO_LOSSES


async def test_sigterm_under_load_finishes_running_requests_and_accepts_no_new_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port), REAPER_INTERVAL="0")
    ledger = Ledger(cluster)
    log = tmp_path / "log"
    async with (
        running(*PROVISIONER, environ=environ, log=log) as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await until(healthy(port))
        cluster.faults.slow(0.3, verb="patch")
        creates = [asyncio.create_task(ledger.create(session, f"e{number}")) for number in range(50)]
        await until(lambda: len(cluster.objects("Pod", NAMESPACE)) >= 3)
        signalled_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await until(lambda: "stopping" in log.read_text())
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as late:
            assert await ledger.create(late, "late") == 0
        process.send_signal(signal.SIGTERM)
        statuses = await asyncio.gather(*creates)
        assert await asyncio.wait_for(process.wait(), GRACE_SECONDS) == 0
        assert time.monotonic() - signalled_at < GRACE_SECONDS
        assert processes_with(str(tmp_path)) == []
    assert statuses.count(200) >= 3
    assert set(statuses) <= {200, 503, 504}
    assert "Traceback" not in log.read_text()
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []
    cluster.faults.clear()
    assert await ledger.losses(None) == NO_LOSSES
