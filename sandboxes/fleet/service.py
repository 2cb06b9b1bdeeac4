"""The operations behind the routes, on the sandboxes of all clusters: where one is, the directory says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import (
    ClusterRefused,
    ConnectionFailed,
    InvalidField,
    ProvisionerError,
    SandboxNotFound,
    ServerFailed,
    Unprocessable,
)
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.fleet.adapter import Unit, UnitCluster
from sandboxes.fleet.directory import Directory, Located
from sandboxes.fleet.feed import FleetFeed
from sandboxes.fleet.homes import Homes
from sandboxes.fleet.keeper import Keeper
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import ClusterAway, Made, Member, Wanted
from sandboxes.service.listing import ListQuery, select
from sandboxes.status.response import reconciliation_for
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.deadlines import Deadlines
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import (
        Diagnostics,
        Reconciliation,
        SandboxList,
        SandboxResponse,
        TemplateResponse,
        WaitedResponse,
    )
    from sandboxes.settings import Settings
    from sandboxes.tasks import Signal

logger = logging.getLogger(__name__)


class Units(Protocol):
    """What the fleet needs of ClusterUnits."""

    @property
    def entries(self) -> Sequence[ClusterEntry]:
        """The entries of the file that is in force."""
        ...

    @property
    def units(self) -> Mapping[str, Unit]:
        """The running units by name."""
        ...

    @property
    def changed(self) -> Signal[[]]:
        """Sent when a new version of the file is in force."""
        ...


class Fleet:
    """The operations on all clusters of the file; see Sandboxes. Use it while `running`."""

    def __init__(self, units: Units, settings: Settings, deadlines: Deadlines) -> None:
        self._units = units
        self._settings = settings
        self._deadlines = deadlines
        # Also those that have left the file, until the directory is complete without them.
        self.clusters: dict[str, UnitCluster] = {}
        self._ending = BackgroundTasks()
        self.directory = Directory(self.clusters, Homes(), self._pause)
        self._placement = Placement(self.directory, _token, self._known_uid)
        self.keeper = Keeper(
            self.directory,
            self._members,
            _token,
            self._forget_left,
            interval=settings.reaper_interval,
            retry=deadlines.clusters_poll,
        )
        self.feed = FleetFeed(self._wanted_units)
        # Where a sandbox was found or made. That stays true while that cluster has its Pod: see Directory.confirm.
        self._known = self._remember_nothing()
        units.changed.connect(self._on_change)
        self.follow()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the directory while the block runs."""
        try:
            async with self.keeper.running(self._deadlines.preflight):
                yield
        finally:
            await asyncio.gather(*(one.finish() for one in self.clusters.values()))
            await self._ending.finish(self._deadlines.settle_finish)

    def follow(self) -> None:
        """Use the units that run now: call it when one was started or replaced."""
        for name, unit in self._units.units.items():
            known = self.clusters.get(name)
            if known is None or known.unit is not unit:
                self.clusters[name] = UnitCluster(unit, self.keeper.wake)
                if known is not None:
                    self._ending.start(known.finish())

    def _on_change(self) -> None:
        self.follow()
        self._known = self._remember_nothing()
        self.feed.close()
        self.keeper.wake()

    def _remember_nothing(self) -> ExpiringDict[str, Located]:
        return ExpiringDict(self._deadlines.fleet_remembered, time.monotonic)

    async def _pause(self) -> None:
        await asyncio.sleep(self._deadlines.fleet_round)

    def _forget_left(self) -> None:
        names = {entry.name for entry in self._units.entries}
        for name in self.clusters.keys() - names:
            self._ending.start(self.clusters.pop(name).finish())

    def _members(self) -> list[Member]:
        return [
            Member(one.name, one.weight, one.labels, one.lost, ready=self._is_ready(one.name))
            for one in self._units.entries
        ]

    def _is_ready(self, name: str) -> bool:
        return name in self.clusters and not self.clusters[name].breaker.is_open

    def _wanted_units(self) -> list[Unit]:
        return [unit for unit in self._units.units.values() if not unit.entry.lost]

    def _known_uid(self, cluster: str, sandbox_id: str) -> str:
        unit = self._units.units.get(cluster)
        pod = unit.service.cluster.known(sandbox_id)[0] if unit is not None else None
        return str(pod["metadata"]["uid"]) if pod is not None else ""

    def templates(self) -> list[TemplateResponse]:
        """Return the templates of all clusters by name; of several with one name, that of the first cluster."""
        found: dict[str, TemplateResponse] = {}
        for unit in self._units.units.values():
            for template in unit.service.templates():
                found.setdefault(template.name, template)
        return [found[name] for name in sorted(found)]

    async def create(self, request: CreateRequest) -> SandboxResponse:
        """Create the sandbox on the cluster that the request and the directory say, or return the existing one.

        Raises what SandboxService.create and Placement.create raise; Unprocessable if no cluster is as requested.
        """
        wanted = self._wanted(request)
        members = self.directory.homes.members
        entries = {entry.name: entry for entry in self._units.entries}
        for name, member in members.items():
            # At once, also while the clusters are asked about a new version of the file: no home depends on these.
            now = entries.get(name, member)
            members[name] = replace(member, weight=now.weight, labels=now.labels, ready=self._is_ready(name))
        answers: dict[str, SandboxResponse] = {}

        async def make(cluster: str, replaces: str) -> Made:
            with _naming(cluster):
                made, answers[cluster] = await self._cluster(cluster).make(request, replaces)
            return made

        found = await self._placement.create(request.sandbox_id, wanted, make)
        self._known.note(request.sandbox_id, found)
        return answers[found.cluster]

    def _wanted(self, request: CreateRequest) -> Wanted:
        wanted = Wanted(request.cluster, request.cluster_labels or {}, request.on_cluster_loss == "recreate")
        entries = {entry.name: entry for entry in self._units.entries}
        if wanted.cluster is not None and wanted.cluster not in entries:
            sentence = f"There is no cluster of this name; there are: {', '.join(entries)}"
            raise Unprocessable([_problem(sentence, wanted.cluster, "cluster")])
        if wanted.labels and not any(wanted.labels.items() <= entry.labels.items() for entry in entries.values()):
            labels = sorted({f"{key}={value}" for entry in entries.values() for key, value in entry.labels.items()})
            sentence = f"No cluster has all these labels; there are: {', '.join(labels) or 'none'}"
            raise Unprocessable([_problem(sentence, dict(wanted.labels), "cluster_labels")])
        if wanted.cluster is not None and not wanted.labels.items() <= entries[wanted.cluster].labels.items():
            sentence = f"Cluster {wanted.cluster} lacks some of these labels"
            raise Unprocessable([_problem(sentence, dict(wanted.labels), "cluster_labels")])
        return wanted

    async def get(self, sandbox_id: str) -> SandboxResponse:
        """Return the sandbox; raises SandboxNotFound on proof only, and ClusterAway where only one cluster knows."""
        cluster = await self._locate(sandbox_id)
        with _naming(cluster.unit.name):
            async with cluster.breaker.guard(is_read=True):
                return await cluster.unit.service.get(sandbox_id)

    async def renew(self, sandbox_id: str, ttl_seconds: int) -> SandboxResponse:
        """Set the expiry to now + `ttl_seconds`; raises what `get` raises."""
        cluster = await self._locate(sandbox_id)
        with _naming(cluster.unit.name):
            async with cluster.breaker.guard():
                return await cluster.unit.service.renew(sandbox_id, ttl_seconds)

    async def touch(self, sandbox_id: str) -> SandboxResponse:
        """Record a use of the sandbox; raises what `get` raises."""
        cluster = await self._locate(sandbox_id)
        with _naming(cluster.unit.name):
            async with cluster.breaker.guard():
                return await cluster.unit.service.touch(sandbox_id)

    async def diagnostics(self, sandbox_id: str) -> Diagnostics:
        """Return the diagnosis of the sandbox; raises what `get` raises."""
        cluster = await self._locate(sandbox_id)
        with _naming(cluster.unit.name):
            async with cluster.breaker.guard():
                return await cluster.unit.service.diagnostics(sandbox_id)

    async def wait(self, answer: SandboxResponse, until: float, *, is_made: bool = False) -> WaitedResponse:
        """Return the sandbox once it is usable; see SandboxService.wait."""
        name = answer.cluster or ""
        with _naming(name):
            return await self._cluster(name).unit.service.wait(answer, until, is_made=is_made)

    async def reconcile(self, sandbox_id: str) -> Reconciliation:
        """Return which Pod the sandbox has, also one that is terminating, or that it has none."""
        found = await self.directory.locate(sandbox_id)
        names = [found.cluster] if found.kind != "nowhere" else await self._may_terminate(sandbox_id)
        answer = reconciliation_for(sandbox_id, None, None, self._settings)
        for name in names:
            with _naming(name):
                answer = await self._cluster(name).unit.service.reconcile(sandbox_id)
            if answer.status == "found":
                break
        return answer

    async def _may_terminate(self, sandbox_id: str) -> list[str]:
        """Return the clusters where a Pod of a deleted sandbox may still be: the home, and what its marker names."""
        home = self.directory.homes.home(sandbox_id)
        marker = (await self.directory.look(home, sandbox_id)).marker
        if marker is None or marker.cluster == home or self.directory.homes.is_out(marker):
            return [home]
        return [home, marker.cluster]

    async def delete(self, sandbox_id: str, *, force: bool = False) -> str | None:
        """Delete the sandbox wherever it is, or prove that there is none. `force`: see SandboxService.delete."""
        warning = None
        if force:
            for name in await self._may_terminate(sandbox_id):
                with _naming(name):
                    warning = await self._cluster(name).unit.service.delete(sandbox_id, force=True) or warning
        await self.directory.delete(sandbox_id)
        return warning

    async def list_matching(self, query: ListQuery | None = None) -> SandboxList:
        """Return the matching sandboxes of all clusters; those that can't be asked are in `incomplete`."""
        query = query or ListQuery()
        names = [one.name for one in self._units.entries if query.cluster in (None, one.name)]
        pictures = await asyncio.gather(*(self._picture(name, query) for name in names))
        incomplete = {name for name, (_, is_whole) in zip(names, pictures, strict=True) if not is_whole}
        on: dict[str, dict[str, SandboxResponse]] = {}
        for name, (answers, _) in zip(names, pictures, strict=True):
            for answer in answers:
                on.setdefault(answer.sandbox_id, {})[name] = answer
        listed: list[SandboxResponse] = []
        for sandbox_id, by_name in sorted(on.items()):
            if len(by_name) == 1:
                listed += by_name.values()
                continue
            logger.warning("sandbox %s is on several clusters: %s", sandbox_id, ", ".join(by_name))
            try:
                found = await self.directory.locate(sandbox_id)
            except ProvisionerError:
                incomplete.update(by_name)
                continue
            if found.cluster in by_name:
                listed.append(by_name[found.cluster])
        return select(listed, query, [name for name in names if name in incomplete])

    async def _picture(self, name: str, query: ListQuery) -> tuple[list[SandboxResponse], bool]:
        """Return the sandboxes of a cluster, and whether these are all.

        One whose live view is behind is asked for a moment only; it is answered from the view then, however old.
        """
        cluster = self.clusters.get(name)
        if cluster is None or cluster.unit.entry.lost:
            return [], False
        service = cluster.unit.service
        is_behind = service.cluster.has_informer and not service.cluster.is_fresh
        seconds = self._deadlines.clusters_answer if is_behind else self._deadlines.read
        try:
            async with cluster.breaker.guard(is_read=not is_behind), within(seconds):
                return await service.list_all(query), True
        except ProvisionerError as error:
            logger.debug("cluster %s can't be listed: %s", name, error)
            return service.list_known(query), False

    async def release(self) -> None:
        """Answer all waiting callers and end all event streams at once."""
        self.feed.close()
        await asyncio.gather(*(unit.service.release() for unit in self._units.units.values()))

    async def _locate(self, sandbox_id: str) -> UnitCluster:
        """Return the cluster that the sandbox is on; from memory if that cluster's live view still has its Pod."""
        known = self._known.get(sandbox_id)
        cluster = self.clusters.get(known.cluster) if known is not None else None
        if known is not None and cluster is not None:
            pod, _ = cluster.unit.service.cluster.seen(sandbox_id)
            if pod is not None and pod["metadata"]["uid"] == known.uid and not kube.is_terminating(pod):
                return cluster
        found = await self.directory.locate(sandbox_id)
        if found.kind == "nowhere":
            raise SandboxNotFound(sandbox_id)
        self._known.note(sandbox_id, found)
        return self._cluster(found.cluster)

    def _cluster(self, name: str) -> UnitCluster:
        cluster = self.clusters.get(name)
        if cluster is None:
            raise ClusterAway(name, lost=self.directory.homes.is_lost(name))
        return cluster


@contextlib.contextmanager
def _naming(cluster: str) -> Iterator[None]:
    """Name the cluster in the error of one that can't be reached."""
    try:
        yield
    except (ConnectionFailed, ServerFailed) as error:
        raise ClusterAway(cluster, detail=error.detail) from error
    except ClusterRefused as error:
        if error.refuses_all:
            raise ClusterAway(cluster, detail=error.detail) from error
        raise


def _problem(sentence: str, value: object, name: str) -> InvalidField:
    return InvalidField(type="value_error", loc=["body", name], msg=sentence, input=value)


def _token() -> str:
    return secrets.token_hex(8)
