"""The breaker of a cluster that can't be reached, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.errors import ClusterTimeout, ConnectionFailed, ProvisionerError
from sandboxes.fleet.breaker import MOST_FAILURES, Breaker
from tests.unit.virtual_time import now, run


class Cluster:
    """Answers probes from `back_at` on; each takes `seconds`."""

    def __init__(self, back_at: float, seconds: float = 0.0) -> None:
        self.back_at, self.seconds = back_at, seconds
        self.probes: list[float] = []
        self.running = self.most = 0
        self.back: list[float] = []
        self.breaker = Breaker("west", self.probe, lambda: self.back.append(now()), Deadlines())

    async def probe(self) -> None:
        self.probes.append(now())
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        if now() < self.back_at:
            raise ConnectionFailed("away")

    async def fail(self, error: ProvisionerError | None, *, is_read: bool = True) -> None:
        async def call() -> None:
            async with self.breaker.guard(is_read=is_read):
                raise error or AssertionError("the block of an unreachable cluster has run")

        with pytest.raises(type(error) if error else ConnectionFailed):
            await call()

    def is_open(self) -> bool:
        return self.breaker.is_open


def test_only_failures_in_a_row_make_a_cluster_unreachable() -> None:
    async def ask() -> None:
        cluster = Cluster(0.0)
        for _ in range(3):
            for _ in range(MOST_FAILURES - 1):
                await cluster.fail(ConnectionFailed("away"))
            async with cluster.breaker.guard():
                pass
        assert not cluster.is_open()
        for _ in range(MOST_FAILURES):
            await cluster.fail(ClusterTimeout(), is_read=False)
        assert not cluster.is_open()  # a create may time out although the cluster answers

    run(ask())


@pytest.mark.parametrize("error", [ConnectionFailed("away"), ClusterTimeout()])
def test_no_request_waits_for_an_unreachable_cluster_until_it_answers(error: ProvisionerError) -> None:
    async def ask() -> None:
        cluster = Cluster(back_at=40.0, seconds=1.0)
        for _ in range(MOST_FAILURES):
            await cluster.fail(error)
        assert cluster.is_open()
        while cluster.is_open():
            before = now()
            await cluster.fail(None)
            assert now() == before
            await asyncio.sleep(0.25)
        async with cluster.breaker.guard():
            pass
        assert len(cluster.back) == 1
        assert 40.0 <= cluster.back[0] <= 40.0 + Deadlines().fleet_probe_most + 1.0

    run(ask())


def test_an_unreachable_cluster_is_asked_by_one_probe_with_growing_pauses() -> None:
    async def ask() -> None:
        cluster = Cluster(back_at=100.0, seconds=2.0)
        for _ in range(MOST_FAILURES):
            await cluster.fail(ConnectionFailed("away"))
        while cluster.is_open():
            await cluster.fail(None)
            await asyncio.sleep(1.0)
        pauses = [after - before - 2.0 for before, after in zip([-2.0, *cluster.probes], cluster.probes, strict=False)]
        assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
        assert set(pauses[6:]) == {15.0}
        assert cluster.most == 1

    run(ask())


@pytest.mark.parametrize("is_open", [True, False])
def test_a_cluster_of_a_retired_breaker_is_never_asked_again(*, is_open: bool) -> None:
    async def ask() -> None:
        cluster = Cluster(back_at=20.0)
        failures = MOST_FAILURES if is_open else 1
        for _ in range(failures):
            await cluster.fail(ConnectionFailed("away"))
        await asyncio.sleep(5.0)
        cluster.breaker.retire()
        probes = len(cluster.probes)
        assert bool(probes) is is_open
        for _ in range(MOST_FAILURES - failures):  # of a request that still has it
            await cluster.fail(ConnectionFailed("away"))
        await asyncio.sleep(100.0)
        await cluster.fail(None)
        assert (len(cluster.probes), cluster.back) == (probes, [])

    run(ask())
