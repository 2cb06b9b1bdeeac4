"""Describes each cluster for `GET /api/clusters`, from what is known: a cluster that hangs delays no answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from sandboxes.deadlines import within
from sandboxes.errors import ProvisionerError
from sandboxes.logs import name_cluster
from sandboxes.models.clusters import ClusterCapacity, ClusterResponse
from sandboxes.ops.health import ENDING, OK, Health, Readiness
from sandboxes.ops.quotas import Quotas
from sandboxes.ops.rights import rights_wanted
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxes.models.clusters import ClusterState
    from sandboxes.service.sandboxes import SandboxService
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

SILENT = "The cluster does not answer at the moment"


class ClusterOverview:
    """What is known of one cluster. Each report asks the cluster again, in the background.

    `weight`: share of new sandboxes; 0: none.
    """

    def __init__(self, name: str, service: SandboxService, settings: Settings, *, weight: int = 1) -> None:
        self.name = name
        self.weight = weight
        self.health = Health(service.cluster, rights_wanted(service.loaded_templates, settings))
        # Returns why the gateway can't reach the cluster's Pods, in one sentence; None if it can, or has not tried.
        self.dial_problem: Callable[[], str | None] = lambda: None
        self._access = settings.access
        self._service = service
        self._most = settings.max_sandboxes
        self._tasks = BackgroundTasks()
        self._looking: asyncio.Task[None] | None = None
        # Of the last look: why it can't be asked, and whatever is wrong with it, each in a sentence; None: nothing.
        self._unreachable: str | None = None
        self._degraded: str | None = None
        self._version: str | None = None
        self._version_due = 0.0
        self._quotas = Quotas(service.cluster)
        self._quotas_wanted = False

    async def report(self, *, quotas: bool = True) -> ClusterResponse:
        """Return what is known of the cluster; `quotas`: the look at it reads its quotas, too.

        Waits up to `clusters_answer` for a new look at it; not at all if the last look found it unreachable.
        """
        self._quotas_wanted = self._quotas_wanted or quotas
        if self._looking is None or self._looking.done():
            self._looking = self._tasks.start(self._look())
        if self._unreachable is None:
            await asyncio.wait([self._looking], timeout=self._service.cluster.deadlines.clusters_answer)
        state, error = self._state()
        return ClusterResponse(
            name=self.name,
            access=self._access,
            state=state,
            version=self._version,
            sandboxes=self._service.statuses(),
            capacity=ClusterCapacity(max_sandboxes=self._most or None, quota=self._quotas.left),
            last_error=error,
        )

    async def finish(self) -> None:
        """End the look that is under way, if any."""
        await self._tasks.finish(0.0)

    def _state(self) -> tuple[ClusterState, str | None]:
        if self._unreachable is not None:
            return "unreachable", self._unreachable
        wrong = self._degraded or self.dial_problem()
        is_answered = self._looking is not None and self._looking.done()
        if not is_answered and not self._service.cluster.is_fresh:
            wrong = SILENT
        if self.weight == 0:
            return "draining", wrong
        return "degraded" if wrong else "ready", wrong

    async def _look(self) -> None:
        checks = (await self.health.readiness()).checks
        if "api_server" not in checks:  # the process is shutting down
            return
        wrong = {name: sentence for name, sentence in checks.items() if sentence != OK}
        self._unreachable = wrong.get("kubectl") or wrong.get("api_server")
        self._degraded = next(iter(wrong.values()), None)
        if self._unreachable is None:
            wanted, self._quotas_wanted = self._quotas_wanted, False
            await asyncio.gather(self._ask_version(), *([self._quotas.look()] if wanted else []))

    async def _ask_version(self) -> None:
        if _now() < self._version_due:
            return
        self._version_due = _now() + self._service.cluster.deadlines.version_retry
        try:
            async with within(self._service.cluster.deadlines.ready):
                # Any authenticated user may read it (role system:public-info-viewer).
                answer = await self._service.cluster.kubectl.run("get", "--raw", "/version", is_probe=True)
            self._version = _Version.model_validate_json(answer).gitVersion
        except (ProvisionerError, ValidationError) as error:
            logger.debug("the version of the cluster can't be read: %s", error)
        else:
            self._version_due = _now() + self._service.cluster.deadlines.version_believed


class _Version(BaseModel):
    gitVersion: str  # noqa: N815 - Kubernetes' name


class ClusterOverviews:
    """The clusters in the order of the file; there is at least one. `unusable`: why one has no service, by name.

    `of_file`: whether the operator lists them; without the list there is one.
    """

    def __init__(self, overviews: Iterable[ClusterOverview], *, of_file: bool = False) -> None:
        self.by_name = {one.name: one for one in overviews}
        self.unusable: dict[str, str] = {}
        # Returns what is wrong with a cluster's entry in the list, in one sentence; None if nothing is.
        self.entry_problem: Callable[[str], str | None] = lambda _name: None
        self._of_file = of_file
        self._is_stopping = False

    async def readiness(self) -> Readiness:
        """Return whether this replica can do its work: with a list of clusters, while one of them is ready.

        The checks are then the clusters by name, each with what is wrong with it. One that hangs delays nothing.
        """
        if not self._of_file:
            return await next(iter(self.by_name.values())).health.readiness()
        reports = [] if self._is_stopping else await self.reports(quotas=False)
        if self._is_stopping:
            return ENDING
        checks = {one.name: one.last_error or OK for one in reports}
        return Readiness(checks, needs_one=True)

    def stop(self) -> None:
        """Report this replica as not ready from now on, because the process is shutting down."""
        self._is_stopping = True
        for one in self.by_name.values():
            one.health.stop()

    async def reports(self, *, quotas: bool = True) -> list[ClusterResponse]:
        """Return what is known of each cluster; asks all at once. `quotas`: see ClusterOverview.report."""
        reports = await asyncio.gather(*(self._report(one, quotas=quotas) for one in self.by_name.values()))
        return [*reports, *(_without_service(name, why) for name, why in self.unusable.items())]

    async def _report(self, one: ClusterOverview, *, quotas: bool) -> ClusterResponse:
        """Ask one cluster; call it in a task of its own, whose log lines have the name, with a list of clusters."""
        if self._of_file:
            name_cluster(one.name)
        report = await one.report(quotas=quotas)
        problem = self.entry_problem(one.name)
        if problem is None or report.state == "unreachable":
            return report
        state: ClusterState = "degraded" if report.state == "ready" else report.state
        return report.model_copy(update={"state": state, "last_error": problem})

    async def finish(self) -> None:
        """End all looks that are under way."""
        await asyncio.gather(*(one.finish() for one in self.by_name.values()))


def _without_service(name: str, why: str) -> ClusterResponse:
    capacity = ClusterCapacity(max_sandboxes=None, quota=None)
    return ClusterResponse(
        name=name, access=None, state="unreachable", version=None, sandboxes=None, capacity=capacity, last_error=why
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
