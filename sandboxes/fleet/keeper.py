"""Keeps the directory in step with the file: takes new versions of it, completes changes of names, and cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from sandboxes.errors import ProvisionerError
from sandboxes.fleet.names import NameChange
from sandboxes.fleet.twins import problem_of
from sandboxes.fleet.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from sandboxes.fleet.directory import Directory
    from sandboxes.fleet.protocol import Member

logger = logging.getLogger(__name__)


class Keeper:
    """The background work of one replica on the directory.

    `members` returns the entries of the file. `interval`: seconds between two rounds of clean-up, 0: none. `retry`:
    seconds after which a change of names that could not be completed is tried again. `on_agreed` is called, with the
    names of the file, when all clusters that answer have these. `dry_run`: only log Pods that no create has returned.
    """

    def __init__(  # noqa: PLR0913 - each is independent of the others
        self,
        directory: Directory,
        members: Callable[[], Iterable[Member]],
        new_token: Callable[[], str],
        on_agreed: Callable[[frozenset[str]], None],
        *,
        interval: float,
        retry: float,
        dry_run: bool = False,
    ) -> None:
        self._directory = directory
        self._members = members
        self._change = NameChange(directory, new_token)
        self._upkeep = Upkeep(directory)
        self._on_agreed = on_agreed
        self._interval = interval
        self._retry = retry
        self._dry_run = dry_run
        self._woken = asyncio.Event()
        self._tried = asyncio.Event()
        self._said = ""
        self._twins: dict[str, str] = {}

    def wake(self) -> None:
        """Look at the file and the clusters again, now."""
        self._woken.set()

    @contextlib.asynccontextmanager
    async def running(self, patience: float) -> AsyncIterator[None]:
        """Work while the block runs, which begins after the first round, or `patience` seconds."""
        task = asyncio.create_task(self._work())
        tried = asyncio.create_task(self._tried.wait())
        try:
            await asyncio.wait({tried}, timeout=patience)
            yield
        finally:
            for one in (task, tried):
                one.cancel()
            await asyncio.gather(task, tried, return_exceptions=True)

    async def agree(self) -> bool:
        """Take the file, and complete the directory for its names; return whether that is done."""
        members = list(self._members())
        try:
            if not await self._directory.adopt(members):
                await self._change.run()
            self._log_twins()
        except ProvisionerError as error:
            if error.public != self._said:
                logger.warning("the list of clusters is not complete yet: %s", error)
            self._said = error.public
            self._log_twins()
            return False
        self._said = ""
        self._on_agreed(frozenset(one.name for one in members))
        return True

    def _log_twins(self) -> None:
        """Log each cluster that is the same as another one, once."""
        twins = self._directory.homes.twins()
        for name in twins.keys() - self._twins.keys():
            logger.error("cluster %s: %s", name, problem_of(name, twins))
        self._twins = twins

    async def clean_up(self) -> None:
        """Remove what is left of sandboxes that are gone, that were replaced, or that no caller was told of."""
        for sandbox_id in await self._upkeep.remove_markers():
            logger.info("sandbox %s: its marker is removed", sandbox_id)
        for sandbox_id in await self._upkeep.remove_unreturned(dry_run=self._dry_run):
            logger.info("sandbox %s: a Pod that no create has returned is deleted", sandbox_id)
        for sandbox_id in await self._upkeep.remove_replaced():
            logger.info("sandbox %s: the Pod that it replaced is deleted", sandbox_id)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        clean_at = loop.time() + self._interval
        while True:
            self._woken.clear()
            try:
                is_agreed = await self.agree()
                self._tried.set()
                if is_agreed and self._interval and loop.time() >= clean_at:
                    await self.clean_up()
                    clean_at = loop.time() + self._interval
            except Exception:
                logger.exception("the directory of clusters could not be kept")
                is_agreed = False
            pause = (self._interval or None) if is_agreed else self._retry
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
