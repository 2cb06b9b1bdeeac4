"""The operations behind the routes, on the sandboxes of all clusters: the directory says where each is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sandboxes import objects as kube
from sandboxes.deadlines import budget, left, within
from sandboxes.errors import (
    ClusterRefused,
    ConnectionFailed,
    ProvisionerError,
    SandboxNotFound,
    ServerFailed,
)
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.fleet.adapter import Unit, UnitCluster
from sandboxes.fleet.copies import Copies
from sandboxes.fleet.directory import Directory, Located
from sandboxes.fleet.feed import FleetFeed
from sandboxes.fleet.homes import Homes
from sandboxes.fleet.keeper import Keeper
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import ClusterAway, Made, Member
from sandboxes.fleet.twins import problem_of
from sandboxes.fleet.wishes import wanted_of
from sandboxes.logs import in_cluster, name_cluster
from sandboxes.service.listing import ListQuery, select
from sandboxes.status.response import reconciliation_of_none
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.deadlines import Deadlines
    from sandboxes.models.clusters import DoubledSandbox
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import (
        Diagnostics,
        Reconciliation,
        SandboxList,
        SandboxResponse,
        TemplateResponse,
        WaitedResponse,
    )
    from sandboxes.models.urls import SandboxUrl
    from sandboxes.service.sandboxes import SandboxService
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
        self.directory = Directory(self.clusters, Homes(), self._pause)
        self._copies = Copies(self.clusters, self.directory, deadlines)
        self._placement = Placement(self.directory, _token, self._known_uid)
        self.keeper = Keeper(
            self.directory,
            self._members,
            _token,
            self._forget_left,
            interval=settings.reaper_interval,
            retry=deadlines.clusters_poll,
            dry_run=settings.reaper_dry_run,
        )
        self.feed = FleetFeed(self._wanted_units)
        # Ends the work of those that have left, or were started anew.
        self._ending = BackgroundTasks()
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
                    known.end(self.clusters[name])
                    self._ending.start(known.finish())

    def _on_change(self) -> None:
        self.follow()
        self.directory.homes.note_file(self._members())
        self._known = self._remember_nothing()
        self.feed.close()
        self.keeper.wake()

    def _remember_nothing(self) -> ExpiringDict[str, Located]:
        return ExpiringDict(self._deadlines.fleet_remembered, time.monotonic)

    async def _pause(self) -> None:
        await asyncio.sleep(self._deadlines.fleet_round)

    def _forget_left(self, agreed: frozenset[str]) -> None:
        # The file may have changed meanwhile; a cluster that has left it since is still needed to complete that.
        names = {entry.name for entry in self._units.entries}
        for name in self.clusters.keys() - names - agreed:
            left_one = self.clusters.pop(name)
            left_one.end()
            self._ending.start(left_one.finish())

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

        Takes as long as a create on one cluster may, in all. Raises what SandboxService.create and Placement.create
        raise; OutOfTime; Unprocessable if no cluster is as requested.
        """
        entries = {entry.name: entry for entry in self._units.entries}
        wanted = wanted_of(request, entries)
        members = self.directory.homes.members
        for name, member in members.items():
            # At once, also while the clusters are asked about a new version of the file: no home depends on these.
            now = entries.get(name, member)
            members[name] = replace(member, weight=now.weight, labels=now.labels, ready=self._is_ready(name))
        answers: dict[str, SandboxResponse] = {}

        async def make(cluster: str, replaces: str, *, may_move: bool) -> Made:
            with _naming(cluster):
                made, answers[cluster] = await self._cluster(cluster).make(request, replaces, may_move=may_move)
            return made

        with _request(self._deadlines.create):
            found = await self._placement.create(request.sandbox_id, wanted, make)
        name_cluster(found.cluster)
        self._known.note(request.sandbox_id, found)
        return answers[found.cluster]

    async def get(self, sandbox_id: str) -> SandboxResponse:
        """Return the sandbox; raises SandboxNotFound on proof only, and ClusterAway where only one cluster knows."""
        async with self._at(sandbox_id, is_read=True) as service:
            return await service.get(sandbox_id)

    async def renew(self, sandbox_id: str, ttl_seconds: int) -> SandboxResponse:
        """Set the expiry to now + `ttl_seconds`; raises what `get` raises."""
        async with self._at(sandbox_id) as service:
            return await service.renew(sandbox_id, ttl_seconds)

    async def touch(self, sandbox_id: str) -> SandboxResponse:
        """Record a use of the sandbox; raises what `get` raises."""
        async with self._at(sandbox_id) as service:
            return await service.touch(sandbox_id)

    async def make_url(self, sandbox_id: str, *, port: int | None = None, ttl_seconds: int | None = None) -> SandboxUrl:
        """Return a URL of the sandbox by the gateway; raises what `get` and SandboxService.make_url raise."""
        async with self._at(sandbox_id, is_read=True) as service:
            return await service.make_url(sandbox_id, port=port, ttl_seconds=ttl_seconds)

    async def revoke_urls(self, sandbox_id: str) -> SandboxResponse:
        """Make all URLs of the sandbox by the gateway invalid; raises what SandboxService.revoke_urls raises."""
        async with self._at(sandbox_id) as service:
            return await service.revoke_urls(sandbox_id)

    async def diagnostics(self, sandbox_id: str) -> Diagnostics:
        """Return the diagnosis of the sandbox; raises what `get` raises."""
        async with self._at(sandbox_id) as service:
            return await service.diagnostics(sandbox_id)

    @contextlib.asynccontextmanager
    async def _at(self, sandbox_id: str, *, is_read: bool = False) -> AsyncIterator[SandboxService]:
        """Find the sandbox and run the block on its cluster's service, both together within the time of a read."""
        with _request(self._deadlines.read):
            cluster = await self._locate(sandbox_id)
            name_cluster(cluster.unit.name)
            with _naming(cluster.unit.name):
                async with cluster.breaker.guard(is_read=is_read), within(left(self._deadlines.read)):
                    yield cluster.unit.service

    async def wait(self, answer: SandboxResponse, until: float, *, is_made: bool = False) -> WaitedResponse:
        """Return the sandbox once it is usable; see SandboxService.wait."""
        name = answer.cluster or ""
        with _naming(name):
            return await self._cluster(name).unit.service.wait(answer, until, is_made=is_made)

    async def reconcile(self, sandbox_id: str) -> Reconciliation:
        """Return which Pod the sandbox has, also one that is terminating, or that it has none."""
        with _request(self._deadlines.read):
            found = await self.directory.locate(sandbox_id)
            names = [found.cluster] if found.kind != "nowhere" else await self._may_terminate(sandbox_id)
            answer = reconciliation_of_none(sandbox_id, self._settings)
            for name in names:
                with _naming(name):
                    async with within(left(self._deadlines.read)):
                        answer = await self._cluster(name).unit.service.reconcile(sandbox_id)
                if answer.status == "found":
                    break
            return answer

    async def _may_terminate(self, sandbox_id: str) -> list[str]:
        """Return the clusters where a Pod of a deleted sandbox may still be: the home, and what its marker names."""
        home = self.directory.homes.home(sandbox_id)
        marker = (await self.directory.look(home, sandbox_id)).marker
        return [home] if marker is None or marker.state == "pending" else list(dict.fromkeys((home, marker.cluster)))

    async def delete(self, sandbox_id: str, *, force: bool = False) -> str | None:
        """Delete the sandbox wherever it is, or prove that there is none. `force`: see SandboxService.delete.

        Deletes all Pods of one that several clusters have, as far as their live views show it. Raises ClusterAway that
        names the cluster if one of them can't be deleted.
        """
        warning = None
        with _request(self._deadlines.delete):
            copies = self._copies.of(sandbox_id)
            if force:
                for name in await self._may_terminate(sandbox_id):
                    with _naming(name):
                        async with within(left(self._deadlines.delete)):
                            warning = await self._cluster(name).unit.service.delete(sandbox_id, force=True) or warning
            await self.directory.delete(sandbox_id)
            await self._copies.delete(sandbox_id, copies)
        return warning

    async def doubled(self) -> list[DoubledSandbox]:
        """Return the sandboxes that several clusters have; see Copies.doubled."""
        return await self._copies.doubled()

    def problem_of(self, name: str) -> str | None:
        """Return what is wrong with the entry of this cluster, in one sentence; None if nothing is."""
        return problem_of(name, self.directory.homes.twins())

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
            apart = list(by_name) if len(by_name) == 1 else self.directory.homes.apart(by_name) or list(by_name)
            if len(apart) == 1:
                listed.append(by_name[apart[0]])
                continue
            self.directory.doubles.say(sandbox_id, by_name)
            try:
                found = self.directory.seen(sandbox_id) or await self.directory.locate(sandbox_id)
            except ProvisionerError:
                incomplete.update(by_name)
                continue
            if found.cluster in by_name:
                listed.append(by_name[found.cluster])
        strangers = self.directory.homes.strangers() - self.clusters.keys()
        names += sorted(name for name in strangers if query.cluster in (None, name))
        return select(listed, query, [name for name in names if name in incomplete | strangers])

    async def _picture(self, name: str, query: ListQuery) -> tuple[list[SandboxResponse], bool]:
        """Return the sandboxes of a cluster, and whether these are all."""
        cluster = self.clusters.get(name)
        if cluster is None or cluster.unit.entry.lost:
            return [], False
        return await cluster.pictures.take(query)

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
        found = self.directory.seen(sandbox_id) or await self.directory.locate(sandbox_id)
        if found.kind == "nowhere":
            raise SandboxNotFound(sandbox_id)
        self._known.note(sandbox_id, found)
        return self._cluster(found.cluster)

    def _cluster(self, name: str) -> UnitCluster:
        cluster = self.clusters.get(name)
        if cluster is None:
            raise self.directory.homes.away(name)
        return cluster


@contextlib.contextmanager
def _request(seconds: float) -> Iterator[None]:
    """Limit a request to `seconds` in all. The lines after it name the cluster that is the cause of its error."""
    try:
        with budget(seconds):
            yield
    except ClusterAway as error:
        name_cluster(error.cluster)
        raise


@contextlib.contextmanager
def _naming(cluster: str) -> Iterator[None]:
    """Name the cluster in the log lines, and in the error of one that can't be reached."""
    try:
        with in_cluster(cluster):
            yield
    except (ConnectionFailed, ServerFailed) as error:
        raise ClusterAway(cluster, detail=error.detail) from error
    except ClusterRefused as error:
        if error.refuses_all:
            raise ClusterAway(cluster, detail=error.detail) from error
        raise


def _token() -> str:
    return secrets.token_hex(8)
