"""Bulkhead: the limits of concurrent and of waiting calls."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.errors import Busy
from sandboxes.service.locks import Bulkhead
from tests.waiting import until


async def test_calls_past_both_limits_are_rejected_immediately() -> None:
    bulkhead, running, most = Bulkhead(at_once=2, waiting=3), 0, 0
    end = asyncio.Event()

    async def work() -> None:
        nonlocal running, most
        async with bulkhead.one():
            running += 1
            most = max(most, running)
            await end.wait()
            running -= 1

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    await until(lambda: running == 2)
    with pytest.raises(Busy):
        await asyncio.wait_for(work(), 1)
    end.set()
    await asyncio.gather(*tasks)
    assert (most, running) == (2, 0)
    await work()


async def test_a_cancelled_waiter_frees_its_place() -> None:
    bulkhead, end = Bulkhead(at_once=1, waiting=1), asyncio.Event()

    async def work() -> None:
        async with bulkhead.one():
            await end.wait()

    running, waiting = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await work()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    next_one = asyncio.create_task(work())
    await asyncio.sleep(0)
    end.set()
    await asyncio.gather(running, next_one)
