"""Several clusters with callers at work, at replicas of the service that start and end meanwhile."""

from __future__ import annotations

import pytest

from tests.contract.fleet_chaos import StartChaos, marks, until

pytestmark = [*marks, pytest.mark.chaos]


async def test_nothing_is_lost_when_a_replica_starts_while_a_cluster_is_away(start_chaos: StartChaos) -> None:
    """As processes, with all checks of a start."""
    chaos = await start_chaos(2, as_processes=True)
    async with chaos.callers():
        await chaos.at_work()
    chaos.clusters["west"].faults.refuse()
    await chaos.lacks("west")
    await chaos.start()
    await chaos.kill(0)
    async with chaos.callers(prefix="b"):
        await chaos.go_on_without("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


async def test_nothing_is_lost_with_a_first_start_while_a_cluster_is_away(start_chaos: StartChaos) -> None:
    """No cluster has a record of names yet."""
    chaos = await start_chaos(2, replicas=0)
    chaos.clusters["west"].faults.refuse()
    await chaos.start()
    async with chaos.callers():
        await chaos.lacks("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


async def test_two_replicas_lose_nothing_when_a_cluster_is_killed_and_comes_back(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(2, replicas=2)
    async with chaos.callers(rivals=4):
        await chaos.at_work()
        chaos.clusters["west"].faults.refuse()
        await chaos.go_on_without("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


async def test_two_replicas_lose_nothing_when_one_starts_and_one_is_killed(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3, as_processes=True)
    async with chaos.callers(rivals=4):
        await chaos.at_work()
        await chaos.start()
        await until(chaos.more(6))
        await chaos.kill(0)
        await until(chaos.more(6))
    await chaos.assert_nothing_lost()
