"""A pool of kubectl processes that are started ahead and wait on stdin, which saves their startup time.

`apply -f -`, `get -f -` and `delete -f -` block on stdin before they connect to the server (kubectl.md, Cost: 39 ms
instead of 75 to 100). A process reads the kubeconfig when it starts, so old ones are replaced. Starting one takes 50 ms
of CPU, which the calls need: used ones are replaced after the calls, unless none is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.client import APPLY, DELETE, GET
from sandboxes.kubectl.stderr import is_unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.process import Child, Completed
    from sandboxes.kubectl.runner import KubectlRunner

logger = logging.getLogger(__name__)

# Processes per call that wait without load; each uses 12 MB of private memory (kubectl.md, Cost).
IDLE = {APPLY: 2, GET: 1, DELETE: 1}


@dataclass
class _Shelf:
    """Waiting processes of one call, oldest first. `wanted`: their target number, at least `least`."""

    least: int
    wanted: int
    waiting: deque[tuple[float, Child]] = field(default_factory=deque)
    starting: int = 0


class ProcessPool:
    """A Runner that uses a waiting process, or starts one if none is waiting.

    `most`: maximum number of waiting processes per call. The number grows with each call that finds none, and shrinks
    to IDLE without load. `kubeconfigs`: when one of these files changes, all are replaced.
    """

    def __init__(self, runner: KubectlRunner, *kubeconfigs: Path, most: int, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._runner = runner
        self._kubeconfigs = kubeconfigs
        self._most = most
        self._shelves = {args: _Shelf(least, least) for args, least in IDLE.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen = [*map(_fingerprint, kubeconfigs)]
        self._is_open = False
        self._generation = 0
        self._running_calls = 0
        # Refills the shelves after the last call.
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def running(self, after: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        """Keep processes waiting while the block runs; kill them after it.

        The first ones are started `after` this has ended, `pool_delay` seconds later at the latest; until then each
        call starts its own.
        """
        if after is None:
            self._open()
        keeper = asyncio.create_task(self._keep(after))
        try:
            yield
        finally:
            self._is_open = False
            self._stop_timer()
            keeper.cancel()
            await asyncio.gather(keeper, *self._tasks, return_exceptions=True)
            await self._end([child for shelf in self._shelves.values() for _, child in _emptied(shelf)])

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Run kubectl once; see runner.Runner. If the credentials are rejected, retry once with a new process."""
        shelf = self._shelves.get(tuple(args))
        if shelf is None or stdin is None or not self._is_open:
            return await self._runner(args, stdin=stdin)
        with self._calling():
            return await self._call(shelf, args, stdin)

    async def _call(self, shelf: _Shelf, args: Sequence[str], stdin: bytes) -> Completed:
        child = self._take(shelf)
        if child is None:
            shelf.wanted = min(self._most, shelf.wanted + 1)
        self._refill(tuple(args))
        if child is None:
            return await self._runner(args, stdin=stdin)
        completed = await self._runner.plugins.communicate(child, stdin)
        if completed.returncode != 0 and is_unauthorized(completed.stderr):
            logger.info("the cluster refuses the credentials that waiting processes have read: renewing all")
            self._renew()
            return await self._runner(args, stdin=stdin)
        return completed

    def _open(self) -> None:
        self._is_open = True
        self._refill_all()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Count the block as a call; refill the shelves `pool_pause` after the last one."""
        self._running_calls += 1
        self._stop_timer()
        try:
            yield
        finally:
            self._running_calls -= 1
            if not self._running_calls and self._is_open:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._deadlines.pool_pause, self._refill_all)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> int:
        """Number of waiting processes."""
        return sum(len(shelf.waiting) for shelf in self._shelves.values())

    def _take(self, shelf: _Shelf) -> Child | None:
        while shelf.waiting:
            _, child = shelf.waiting.popleft()
            if not child.has_ended:
                return child
            self._end_soon([child])
        return None

    def _refill_all(self) -> None:
        for args in self._shelves:
            self._refill(args)

    def _refill(self, args: tuple[str, ...]) -> None:
        """Start the missing processes; while a call runs, only one, and only if none is left."""
        shelf = self._shelves[args]
        target = 1 if self._running_calls else shelf.wanted
        while self._is_open and len(shelf.waiting) + shelf.starting < target:
            shelf.starting += 1
            self._spawn(self._start(args, shelf))

    async def _start(self, args: tuple[str, ...], shelf: _Shelf) -> None:
        generation = self._generation
        try:
            child = await self._runner.start(args, reads=True)
        except OSError as error:
            logger.warning("a kubectl could not be started ahead: %s", error)
            return
        finally:
            shelf.starting -= 1
        if generation != self._generation:  # it may have read the old kubeconfig
            await child.kill()
            self._refill(args)
            return
        shelf.waiting.append((asyncio.get_running_loop().time(), child))

    async def _keep(self, after: Callable[[], Awaitable[None]] | None) -> None:
        """Start processes; then periodically replace old and exited ones, and end surplus ones."""
        if after is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadlines.pool_delay):
                    await after()
            self._open()
        while True:
            await asyncio.sleep(self._deadlines.pool_tick)
            try:
                self._tidy()
            except Exception:
                logger.exception("the waiting processes could not be maintained")

    def _tidy(self) -> None:
        seen = [*map(_fingerprint, self._kubeconfigs)]
        if seen != self._seen:
            logger.info("the kubeconfig has changed: renewing the waiting processes")
            self._seen = seen
            self._renew()
        oldest = asyncio.get_running_loop().time() - self._deadlines.pool_age
        for args, shelf in self._shelves.items():
            shelf.wanted = max(shelf.least, shelf.wanted - 1)
            kept = [entry for entry in shelf.waiting if entry[0] > oldest and not entry[1].has_ended]
            kept = kept[: shelf.wanted]
            self._end_soon([entry[1] for entry in shelf.waiting if entry not in kept])
            shelf.waiting = deque(kept)
            self._refill(args)

    def _renew(self) -> None:
        self._generation += 1
        self._end_soon([child for shelf in self._shelves.values() for _, child in _emptied(shelf)])
        self._refill_all()

    def _end_soon(self, children: list[Child]) -> None:
        if children:
            self._spawn(self._end(children))

    @staticmethod
    async def _end(children: list[Child]) -> None:
        await asyncio.gather(*(child.kill() for child in children))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _emptied(shelf: _Shelf) -> list[tuple[float, Child]]:
    taken = list(shelf.waiting)
    shelf.waiting.clear()
    return taken


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Return inode, mtime and size of the file, or None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
