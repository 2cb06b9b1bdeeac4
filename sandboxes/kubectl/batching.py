"""Group commit: items that arrive while all workers are busy are processed together. Knows no kubectl."""

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

# Weight of the newest measurement in the moving average of the seconds per item.
_NEWEST = 0.3


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    """A waiting item; `context`: of its request, for the log."""

    item: Item
    future: asyncio.Future[Result]
    context: contextvars.Context


class Batcher(Generic[Item, Result]):
    """Processes items in groups, with `workers` at a time.

    `work` takes a group and returns a result or an error for each item, in order. A single item does not wait for
    others. A group has at most `most` items, and only as many as fit the deadline `batch` at the measured time per
    item, so a slow server makes groups smaller. The queue is divided among the workers into groups of at least
    `least` items, since each group has a fixed cost. At most `max_waiting` items wait.
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
        # Sent at the start of each group, with its number of items.
        self.began: Signal[[int]] = Signal()

    @property
    def waiting(self) -> int:
        """Number of queued items."""
        return len(self._queue)

    async def do(self, item: Item) -> Result:
        """Process the item; return its result or raise its error.

        Raises Busy immediately if the queue is full, and after `batch_patience` if the item is still queued.
        Cancellation removes a queued item.
        """
        if len(self._queue) >= self._max_waiting + self._free * self._most:
            raise Busy
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        entry = _Entry(item, future, contextvars.copy_context())
        self._queue.append(entry)
        # Deferred, so that items of the same loop iteration form one group.
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
        """Current maximum number of items in a group."""
        if self._seconds_per_item <= 0:
            return self._most
        return max(1, min(self._most, int(self._deadlines.batch / self._seconds_per_item)))

    async def close(self) -> None:
        """Cancel the running groups and the callers that wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        while self._free and self._queue:
            # Divide among all workers, not only the free ones, rounded up: otherwise the first one to become free would
            # take the whole queue.
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
        except Exception as error:  # raised in each waiting caller
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
            # Rises immediately, decays as a moving average.
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
