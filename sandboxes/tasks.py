"""Work in the background, and who is told when something happens. Knows nothing of sandboxes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")


class BackgroundTasks:
    """Tasks that no request awaits: kept until they end, since asyncio holds them only weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many have not ended."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task of its own and return that; an exception that it raises is a bug and is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, seconds: float) -> None:
        """Return when all have ended, and after `seconds` at the latest; ends none."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, seconds))

    async def finish(self, seconds: float) -> None:
        """Return when all have ended; cancels those that still run after `seconds`."""
        await self.wait(seconds)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task in the background failed by a bug", exc_info=error)


class Signal(Generic[Arguments]):
    """Something that happens: `send` calls every listener in the order in which they were connected."""

    def __init__(self) -> None:
        self._listeners: list[Callable[Arguments, None]] = []

    def connect(self, listener: Callable[Arguments, None]) -> None:
        """Call `listener` from now on, with what `send` is given."""
        self._listeners.append(listener)

    def send(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Tell every listener; raises what one of them raises."""
        for listener in self._listeners:
            listener(*args, **kwargs)
