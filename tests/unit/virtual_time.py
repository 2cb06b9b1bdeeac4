"""An event loop whose clock jumps to the next timer when there is nothing to do: hours take no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Only for work that waits for timers, and not for files, sockets or threads."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        """Return the virtual time."""
        return self._virtual

    def _run_once(self) -> None:
        scheduled = [one for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self._virtual = max(self._virtual, min(one.when() for one in scheduled))
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in virtual time, from 0 on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now() -> float:
    """Return the time since the start of `run`."""
    return asyncio.get_running_loop().time()
