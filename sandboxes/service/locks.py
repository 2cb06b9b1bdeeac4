"""A lock for each key, and a bound on concurrent and waiting tasks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import Busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Locks:
    """One lock for each key, kept only while a task holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str, seconds: float) -> AsyncIterator[float]:
        """Hold the key's lock; yields the rest of `seconds`. Raises ClusterTimeout if it is not acquired in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with within(seconds):
                await lock.acquire()
            try:
                yield end - loop.time()
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


class Bulkhead:
    """Lets at most `at_once` blocks run concurrently and at most `waiting` more wait."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._most = waiting
        self._waiting = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Run the block in a free slot, after waiting for one; raises Busy at once if too many wait already."""
        if self._slots.locked() and self._waiting >= self._most:
            raise Busy
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
