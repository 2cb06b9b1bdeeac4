"""Answers for a cluster that can't be reached, so that requests don't wait for it, and asks it from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from sandboxes.errors import ClusterRefused, ClusterTimeout, ConnectionFailed, ProvisionerError
from sandboxes.logs import in_cluster
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sandboxes.deadlines import Deadlines

logger = logging.getLogger(__name__)

# Failures in a row after which a cluster is unreachable.
MOST_FAILURES = 3


class Breaker:
    """The breaker of one cluster. `probe` asks it, and raises ProvisionerError; `on_back` is called when it answers."""

    def __init__(
        self, name: str, probe: Callable[[], Awaitable[None]], on_back: Callable[[], None], deadlines: Deadlines
    ) -> None:
        self.is_open = False
        self._name = name
        self._probe = probe
        self._on_back = on_back
        self._deadlines = deadlines
        self._failures = 0
        self._tasks = BackgroundTasks()
        self._asking: asyncio.Task[None] | None = None
        self._is_retired = False

    @contextlib.asynccontextmanager
    async def guard(self, *, is_read: bool = False) -> AsyncIterator[None]:
        """Count the failures of the block; raises ConnectionFailed at once while the cluster is unreachable.

        Refused credentials are one: no request gets past them. Of a read, a timeout is a failure, too; a create may
        time out although the cluster answers. OutOfTime is none.
        """
        if self.is_open:
            raise ConnectionFailed("The cluster can't be reached")
        try:
            with in_cluster(self._name):
                yield
        except ConnectionFailed:
            self._failed()
            raise
        except ClusterTimeout:
            if is_read:
                self._failed()
            raise
        except ClusterRefused as error:
            if error.refuses_all:
                self._failed()
            raise
        self._failures = 0

    async def finish(self) -> None:
        """End the probe that is under way, if any."""
        await self._tasks.finish(0.0)

    def retire(self) -> None:
        """Ask the cluster no more, since it has left the file, or another breaker asks it. An open one stays open."""
        self._is_retired = True
        if self._asking is not None:
            self._asking.cancel()

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES and not self.is_open:
            self.is_open = True
            if self._is_retired:
                return
            with in_cluster(self._name):
                logger.warning("cluster %s can't be reached: no request waits for it until it answers", self._name)
                self._asking = self._tasks.start(self._ask())

    async def _ask(self) -> None:
        pause = self._deadlines.fleet_probe
        while True:
            await asyncio.sleep(pause)
            try:
                await self._probe()
            except ProvisionerError as error:
                logger.debug("cluster %s still can't be reached: %s", self._name, error)
                pause = min(2 * pause, self._deadlines.fleet_probe_most)
            else:
                break
        self.is_open, self._failures = False, 0
        logger.info("cluster %s can be reached again", self._name)
        self._on_back()
