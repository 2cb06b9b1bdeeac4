"""One cluster with all that works on it: kubectl, its pool and batches, the informer, the service and the reaper.

Nothing is shared with another cluster, so a unit can be started and ended while the application runs, and one that
hangs holds up no other.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.access.addresses import is_local
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.directory_view import DirectoryView
from sandboxes.cluster.informer import KINDS, Informer
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.cluster.terminations import TerminationLog
from sandboxes.deadlines import DEADLINES, within
from sandboxes.errors import ProvisionerError
from sandboxes.kubectl.batched import UNBOUNDED, BatchedKubectl
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.config import prepare
from sandboxes.kubectl.kubeconfig_files import named_kubeconfigs
from sandboxes.kubectl.pool import ProcessPool
from sandboxes.ops.clusters import ClusterOverview
from sandboxes.ops.preflight import protect
from sandboxes.service.sandboxes import SandboxService
from sandboxes.service.unreachable import warning_of_unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from sandboxes.access.tokens import Keys
    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.config import Connection
    from sandboxes.kubectl.runner import Runner
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

    Preflight = Callable[[Kubectl, Mapping[str, Template], Settings, Deadlines], Awaitable[None]]


@dataclass
class ClusterUnit:
    """One cluster. `settings`: the service's, with those of the entry.

    `entry`: replaced when its weight, labels or `lost` change; nothing else of a unit ever changes. `api_is_local`:
    whether its API server is on this machine's loopback.
    """

    entry: ClusterEntry
    settings: Settings
    service: SandboxService
    overview: ClusterOverview
    pool: ProcessPool
    _batched: BatchedKubectl
    _informer: Informer
    _directory_view: DirectoryView | None
    _only_pods: bool = False
    api_is_local: bool = False

    @property
    def name(self) -> str:
        """Name of the cluster."""
        return self.entry.name

    @property
    def cluster(self) -> Cluster:
        """The cluster that the service works on."""
        return self.service.cluster

    def replace_entry(self, entry: ClusterEntry) -> None:
        """Use the new weight, labels and `lost`."""
        self.entry = entry
        self.overview.weight = entry.weight

    async def check(self, preflight: Preflight) -> None:
        """Check the cluster before it is used, and apply its policies. Raises StartupError if it can't be used."""
        cluster = self.cluster
        await preflight(cluster.kubectl, self.service.loaded_templates, self.settings, cluster.deadlines)
        await protect(self.service.protection, cluster.deadlines)

    async def has_sandboxes(self) -> bool | None:
        """Read from the API server whether the cluster has a sandbox, or a part of one; None if it can't be asked."""
        try:
            async with within(self.cluster.deadlines.read):
                return bool(await self.cluster.list_live(only_pods=self._only_pods))
        except ProvisionerError:
            return None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the pool, the informer and the reaper for as long as the block runs.

        At its end, waiting callers are answered and pending clean-up is finished first, for a limited time.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.settings.kubectl_start_ahead:
                await stack.enter_async_context(self.pool.running())
            if self.settings.kubectl_group:
                stack.push_async_callback(self._batched.close)
            if self.settings.live_view:
                await stack.enter_async_context(self._informer.running())
            if self._directory_view is not None:
                await stack.enter_async_context(self._directory_view.running())
            if self.settings.reaper_interval:
                await stack.enter_async_context(self.service.reaper.running())
            await stack.enter_async_context(warning_of_unreachable(self.cluster, self.service.accesses))
            stack.push_async_callback(self.service.finish)
            stack.push_async_callback(self.release)
            yield

    async def release(self) -> None:
        """Answer all waiting callers and end all event streams at once, and report this cluster as not ready."""
        self.overview.health.stop()
        await self.service.release()
        await self.overview.finish()


@dataclass(frozen=True)
class ClusterPlan:
    """All that decides a unit, read from files. `settings`: of this cluster; `policies`: of its namespace."""

    entry: ClusterEntry
    settings: Settings
    templates: Mapping[str, Template]
    policies: tuple[KubeObject, ...] = ()
    # Whether the unit only serves the gateway, with rights on Pods alone.
    only_pods: bool = False


async def prepare_unit(
    plan: ClusterPlan,
    environ: Mapping[str, str],
    directory: Path,
    *,
    keys: Keys | None = None,
    deadlines: Deadlines = DEADLINES,
) -> ClusterUnit:
    """Build the unit of a cluster, without connecting to it; it works while `running`.

    `keys`: see Accesses. `directory`: writable, of this cluster alone. Raises StartupError if kubectl or the kubeconfig
    can't be used.
    """
    entry, settings = plan.entry, plan.settings
    connection = await prepare(settings, environ, directory, context=entry.context)
    runner = connection.runner
    pool = ProcessPool(runner, *named_kubeconfigs(settings), most=settings.kubectl_max_processes, deadlines=deadlines)
    starter = pool if settings.kubectl_start_ahead else runner
    kubectl = client_of(connection, settings, starter, deadlines, in_batches=settings.kubectl_group)
    batched = BatchedKubectl(
        kubectl,
        max_processes=settings.kubectl_max_processes,
        max_waiting=settings.kubectl_max_waiting,
        deadlines=deadlines,
    )
    informer = Informer(
        kubectl,
        runner,
        settings.k8s_namespace,
        max_age=settings.live_view_max_age,
        kinds=("Pod",) if plan.only_pods else KINDS,
        deadlines=deadlines,
    )
    directory_view = None
    if settings.live_view and settings.clusters_file is not None and not plan.only_pods:
        directory_view = DirectoryView(
            kubectl,
            runner,
            informer,
            settings.k8s_namespace,
            max_age=settings.live_view_max_age,
            deadlines=deadlines,
        )
    cluster = Cluster(
        kubectl,
        informer if settings.live_view else NoInformer(),
        settings.k8s_namespace,
        policies=plan.policies,
        terminations=TerminationLog(deadlines=deadlines),
        deadlines=deadlines,
        batched=batched if settings.kubectl_group else None,
        directory_view=directory_view,
    )
    service = SandboxService(cluster, plan.templates, settings, keys)
    overview = ClusterOverview(entry.name, service, settings, weight=entry.weight)
    return ClusterUnit(
        entry,
        settings,
        service,
        overview,
        pool,
        batched,
        informer,
        directory_view,
        plan.only_pods,
        is_local(settings.k8s_api_server or connection.context.server),
    )


def client_of(
    connection: Connection, settings: Settings, starter: Runner, deadlines: Deadlines, *, in_batches: bool
) -> Kubectl:
    """Return a client of the connection's cluster, whose processes `starter` starts."""
    return Kubectl(
        starter,
        max_processes=settings.kubectl_max_processes,
        # With batches, the batcher limits its own queue; a batch must not be refused after that.
        max_waiting=UNBOUNDED if in_batches else settings.kubectl_max_waiting,
        deadline=deadlines.kubectl_call,
        kubeconfig=connection.runner.kubeconfig,
        plugins=connection.runner.plugins,
        server=connection.context.server,
    )
