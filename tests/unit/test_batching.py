"""Group commit: queued items are processed together, each with its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sandboxes.deadlines import DEADLINES, Deadlines
from sandboxes.errors import Busy, ClusterRefused, ProvisionerError
from sandboxes.kubectl.batching import Batcher


class Worker:
    """Doubles numbers, rejects those in `refuses`; each batch waits for `go`."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.go = asyncio.Event()
        self.seconds = 0.0
        self.refuses: set[int] = set()

    async def __call__(self, items: list[int]) -> Sequence[int | ProvisionerError]:
        self.done.append(items)
        await self.go.wait()
        await asyncio.sleep(self.seconds)
        return [ClusterRefused(f"not {item}") if item in self.refuses else item * 2 for item in items]


def make(
    worker: Worker, *, workers: int = 2, most: int = 50, max_waiting: int = 1000, deadlines: Deadlines = DEADLINES
) -> Batcher[int, int]:
    return Batcher(worker, workers=workers, most=most, max_waiting=max_waiting, deadlines=deadlines)


async def run_ready_tasks() -> None:
    """Run all tasks that are ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_single_item_is_processed_immediately() -> None:
    worker = Worker()
    worker.go.set()
    assert await make(worker).do(1) == 2
    assert worker.done == [[1]]


async def test_queued_items_are_split_evenly_among_the_workers() -> None:
    worker = Worker()
    items = make(worker)
    tasks = []
    for number in range(2):
        tasks.append(asyncio.create_task(items.do(number)))
        await run_ready_tasks()
    tasks += [asyncio.create_task(items.do(number)) for number in range(2, 12)]
    await run_ready_tasks()
    assert worker.done == [[0], [1]]
    worker.go.set()
    assert await asyncio.gather(*tasks) == [number * 2 for number in range(12)]
    sizes = [len(group) for group in worker.done[2:]]
    assert sizes[0] == 5  # the first free worker leaves half for the other
    assert max(sizes) == 5
    assert len(sizes) <= 4


async def test_each_item_gets_its_own_result_or_error() -> None:
    worker = Worker()
    worker.go.set()
    worker.refuses = {3}
    results = await asyncio.gather(*(make(worker).do(n) for n in range(1)), return_exceptions=True)
    items = make(worker, workers=1)
    results = await asyncio.gather(*(items.do(n) for n in range(6)), return_exceptions=True)
    assert [str(one) for one in results] == ["0", "2", "4", "not 3", "8", "10"]


async def test_a_slow_server_reduces_the_batch_size() -> None:
    worker = Worker()
    worker.go.set()
    worker.seconds = 0.02
    items = make(worker, workers=1, deadlines=Deadlines(batch=0.04))
    assert items.longest == 50
    for number in range(4):
        await items.do(number)
    assert items.longest < 5
    await asyncio.gather(*(items.do(number) for number in range(9)))
    assert max(len(group) for group in worker.done) < 5


async def test_a_short_queue_is_not_split_among_the_workers() -> None:
    worker = Worker()
    items = Batcher(worker, workers=4, most=50, max_waiting=100, least=8)
    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(items.do(number)))
        await run_ready_tasks()
    tasks += [asyncio.create_task(items.do(number)) for number in range(4, 10)]
    await run_ready_tasks()
    worker.go.set()
    assert await asyncio.gather(*tasks) == [number * 2 for number in range(10)]
    assert worker.done[4:] == [[4, 5, 6, 7, 8, 9]]


async def test_a_batch_has_at_most_the_allowed_size() -> None:
    worker = Worker()
    worker.go.set()
    items = make(worker, workers=1, most=4)
    await asyncio.gather(*(items.do(number) for number in range(10)))
    assert max(len(group) for group in worker.done) == 4


async def test_a_full_queue_rejects_items_until_it_has_room() -> None:
    worker = Worker()
    items = make(worker, workers=1, max_waiting=2)
    tasks = [asyncio.create_task(items.do(0))]
    await run_ready_tasks()
    tasks += [asyncio.create_task(items.do(number)) for number in (1, 2)]
    await run_ready_tasks()
    with pytest.raises(Busy):
        await items.do(3)
    worker.go.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    assert await items.do(3) == 6


async def test_a_cancelled_item_is_not_processed() -> None:
    worker = Worker()
    items = make(worker, workers=1)
    first = asyncio.create_task(items.do(0))
    await run_ready_tasks()
    second, third = asyncio.create_task(items.do(1)), asyncio.create_task(items.do(2))
    await run_ready_tasks()
    second.cancel()
    await run_ready_tasks()
    worker.go.set()
    assert await first == 0
    assert await third == 4
    assert worker.done == [[0], [2]]


async def test_an_exception_of_the_worker_reaches_all_its_callers_and_the_next_item_succeeds() -> None:
    class Broken(Worker):
        async def __call__(self, items: list[int]) -> Sequence[int | ProvisionerError]:
            if len(self.done) == 0:
                self.done.append(items)
                raise RuntimeError("a bug")
            return await super().__call__(items)

    worker = Broken()
    worker.go.set()
    items = make(worker, workers=1)
    results = await asyncio.gather(items.do(1), items.do(2), return_exceptions=True)
    assert [type(one) for one in results] == [RuntimeError, RuntimeError]
    assert await items.do(3) == 6
