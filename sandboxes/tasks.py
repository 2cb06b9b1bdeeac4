"""Background tasks, and signals that call listeners. Knows nothing of sandboxes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")


class BackgroundTasks:
    """Tasks that no request awaits. Keeps a reference until each ends, since asyncio has only weak ones."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return the number of running tasks."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a new task and return the task; an exception in it is a bug and is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, seconds: float) -> None:
        """Wait until all tasks have ended, at most `seconds`; cancels none."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, seconds))

    async def finish(self, seconds: float) -> None:
        """Wait until all tasks have ended; cancel those that still run after `seconds`."""
        await self.wait(seconds)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task failed by a bug", exc_info=error)


class Signal(Generic[Arguments]):
    """Calls listeners, in the order in which they were connected."""

    def __init__(self) -> None:
        self._listeners: list[Callable[Arguments, None]] = []

    def connect(self, listener: Callable[Arguments, None]) -> None:
        """Call `listener` on each later `send`, with its arguments."""
        self._listeners.append(listener)

    def send(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Call every listener. The first exception propagates and skips the remaining listeners."""
        for listener in self._listeners:
            listener(*args, **kwargs)
