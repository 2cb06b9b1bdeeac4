"""Group commit: what arrives while all workers are busy is done together when they come free. Knows no kubectl."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sandboxes.deadlines import DEADLINES
from sandboxes.errors import Busy, ClusterTimeout, ProvisionerError
from sandboxes.logs import shared_context
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sandboxes.deadlines import Deadlines

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# How much the newest measurement counts in the running mean of the seconds per item.
_NEWEST = 0.3


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    """An item that waits; `context`: of the request that it belongs to, for the log."""

    item: Item
    future: asyncio.Future[Result]
    context: contextvars.Context


class Batcher(Generic[Item, Result]):
    """Does items in groups, by `workers` at once.

    `work` is given a group and returns one result, or one error, for each of its items, in their order. A lone item
    does not wait for company. No group is longer than fits the deadline `batch` at the seconds per item being measured,
    so a slow server makes groups shorter, not deadlines longer; nor longer than `most`. Of fewer than `least` that wait
    no share is made: each group has a price of its own.
    """

    def __init__(  # noqa: PLR0913 - each is a bound of its own
        self,
        work: Callable[[list[Item]], Awaitable[Sequence[Result | ProvisionerError]]],
        *,
        workers: int,
        most: int,
        max_waiting: int,
        least: int = 1,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._deadlines = deadlines
        self._work = work
        self._workers = self._free = workers
        self._most = most
        self._least = least
        self._max_waiting = max_waiting
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._seconds_per_item = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        # For each batch that begins: how many items it has.
        self.began: Signal[[int]] = Signal()

    @property
    def waiting(self) -> int:
        """How many items wait, and have not begun."""
        return len(self._queue)

    async def do(self, item: Item) -> Result:
        """Return the item's result or raise its error; raises Busy at once when too many wait.

        One that has not begun after `batch_patience` seconds is Busy, too. An item that has not begun is never begun
        when its caller is cancelled.
        """
        if len(self._queue) >= self._max_waiting + self._free * self._most:
            raise Busy
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        entry = _Entry(item, future, contextvars.copy_context())
        self._queue.append(entry)
        # Not at once, so that what arrives in the same turn of the loop is one group.
        loop.call_soon(self._dispatch)
        impatience = loop.call_later(self._deadlines.batch_patience, self._give_up, entry)
        try:
            return await future
        finally:
            impatience.cancel()
            if entry in self._queue:
                self._queue.remove(entry)

    def _give_up(self, entry: _Entry[Item, Result]) -> None:
        if entry in self._queue and not entry.future.done():
            entry.future.set_exception(Busy())

    @property
    def longest(self) -> int:
        """How many items a group may have now."""
        if self._seconds_per_item <= 0:
            return self._most
        return max(1, min(self._most, int(self._deadlines.batch / self._seconds_per_item)))

    async def close(self) -> None:
        """End the groups that still run; whoever waits for them is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        while self._free and self._queue:
            # Evenly among all workers, rounded up: those that are busy now come free soon, and if only those that are
            # free shared, the first to come free would take all that waits.
            share = max(-(-len(self._queue) // self._workers), self._least)
            entries = [self._queue.popleft() for _ in range(min(share, self.longest, len(self._queue)))]
            entries = [entry for entry in entries if not entry.future.done()]
            if entries:
                self._free -= 1
                self.began.send(len(entries))
                task = asyncio.create_task(
                    self._do_group(entries), context=shared_context([entry.context for entry in entries])
                )
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _do_group(self, entries: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self._deadlines.batch_limit):
                results = await self._work([entry.item for entry in entries])
        except TimeoutError as error:
            late = ClusterTimeout(detail=f"a group took over {self._deadlines.batch_limit:g} s")
            late.__cause__ = error
            _fail(entries, late)
        except Exception as error:  # handed to each of those who wait for it
            logger.debug("a group of %d failed", len(entries), exc_info=error)
            _fail(entries, error)
        except asyncio.CancelledError:
            for entry in entries:
                entry.future.cancel()
            raise
        else:
            for entry, result in zip(entries, results, strict=True):
                if not entry.future.done():
                    _settle(entry.future, result)
        finally:
            seconds = (loop.time() - started) / len(entries)
            # Slower counts at once, faster by and by.
            mean = self._seconds_per_item + _NEWEST * (seconds - self._seconds_per_item)
            self._seconds_per_item = max(seconds, mean) if seconds > self._seconds_per_item else mean
            self._free += 1
            self._dispatch()


def _fail(entries: list[_Entry[Item, Result]], error: Exception) -> None:
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(error)


def _settle(future: asyncio.Future[Result], result: Result | ProvisionerError) -> None:
    if isinstance(result, ProvisionerError):
        future.set_exception(result)
    else:
        future.set_result(result)
