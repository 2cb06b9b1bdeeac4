"""Lists the sandboxes of one cluster for the list of all: a cluster that does not answer delays only one list.

A cluster whose live view is behind is asked for a moment. If that brings no answer, its later lists are answered from
the view at once, however old it is, while it is asked in the background until it answers in time again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import ProvisionerError
from sandboxes.logs import in_cluster
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from sandboxes.fleet.adapter import UnitCluster
    from sandboxes.models.responses import SandboxResponse
    from sandboxes.service.listing import ListQuery

logger = logging.getLogger(__name__)


class Pictures:
    """The pictures of one cluster."""

    def __init__(self, cluster: UnitCluster) -> None:
        self._cluster = cluster
        self._service = cluster.unit.service
        self._deadlines = self._service.cluster.deadlines
        # Whether the last attempt brought no answer in time.
        self._is_late = False
        self._tasks = BackgroundTasks()
        self._has_ended = False
        self._asking: asyncio.Task[None] | None = None

    async def take(self, query: ListQuery) -> tuple[list[SandboxResponse], bool]:
        """Return the sandboxes of the cluster, and whether these are all."""
        cluster = self._service.cluster
        is_behind = cluster.has_informer and not cluster.is_fresh
        if is_behind and self._is_late:
            self._ask_again()
            return self._service.list_known(query), False
        seconds = self._deadlines.clusters_answer if is_behind else self._deadlines.read
        try:
            async with self._cluster.breaker.guard(is_read=not is_behind), within(seconds):
                answers = await self._service.list_all(query if query.label else None)
        except ProvisionerError as error:
            self._is_late = is_behind
            with in_cluster(self._cluster.unit.name):
                logger.debug("cluster %s can't be listed: %s", self._cluster.unit.name, error)
            return self._service.list_known(query), False
        self._is_late = False
        return answers, True

    async def finish(self) -> None:
        """End the attempt that is under way, if any, and start no other."""
        self._has_ended = True
        await self._tasks.finish(0.0)

    def _ask_again(self) -> None:
        if not self._has_ended and (self._asking is None or self._asking.done()):
            self._asking = self._tasks.start(self._ask())

    async def _ask(self) -> None:
        """Ask the cluster for as long as a read may take; its breaker counts a failure."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._cluster.breaker.guard(is_read=True), within(self._deadlines.read):
                await self._service.list_all()
        except ProvisionerError as error:
            with in_cluster(self._cluster.unit.name):
                logger.debug("cluster %s still can't be listed: %s", self._cluster.unit.name, error)
        else:
            self._is_late = loop.time() - began > self._deadlines.clusters_answer
