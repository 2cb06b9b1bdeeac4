"""Asks each kubectl for its version once, however many clusters use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sandboxes.kubectl.runner import KubectlRunner


class Versions:
    """The versions of the programs that were asked, until their files change. `ask`: see config.version_of."""

    def __init__(self, ask: Callable[[KubectlRunner], Awaitable[str]]) -> None:
        self._ask = ask
        self._asked: dict[Path, tuple[tuple[int, ...], asyncio.Task[str]]] = {}

    async def of(self, runner: KubectlRunner) -> str:
        """Return the version of the runner's program. Callers at the same time share one process, and its error.

        Raises StartupError if it can't be run; then a later call asks again.
        """
        path = runner.binary
        seen = _fingerprint(path)
        known, task = self._asked.get(path, ((), None))
        if task is None or known != seen or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._asking(runner))
            self._asked[path] = seen, task
        return await asyncio.shield(task)

    async def _asking(self, runner: KubectlRunner) -> str:
        return await self._ask(runner)


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Return device, inode, mtime and size of the file; empty if it can't be read."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
