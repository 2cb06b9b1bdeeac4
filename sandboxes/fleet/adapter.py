"""A cluster as the directory uses it, over its unit: everything is read from the API server.

Calls kubectl without batches, so that the adapter of a cluster that has left the file still answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from sandboxes import objects as kube
from sandboxes.cluster.retry import persist
from sandboxes.deadlines import left, within
from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    ObjectsChanged,
    OutOfTime,
    PreconditionFailed,
    ProvisionerError,
)
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.fleet.breaker import Breaker
from sandboxes.fleet.markers import (
    RECORD_NAME,
    REPLACES_ANNOTATION,
    Marker,
    Record,
    build_marker,
    build_record,
    marker_name,
    parse_marker,
    parse_record,
)
from sandboxes.fleet.parsing import believed, pod_on, pods_on
from sandboxes.fleet.pictures import Pictures
from sandboxes.fleet.protocol import Look, Made, NotReadable, Pod, Unschedulable
from sandboxes.kubectl import raw
from sandboxes.kubectl.config_maps import read_in_order, replace
from sandboxes.logs import in_cluster, name_cluster
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.deadlines import Deadlines
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import SandboxResponse
    from sandboxes.objects import KubeObject
    from sandboxes.service.sandboxes import SandboxService
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LEFT_BEHIND = "sandbox %s: a Pod that was not returned may be left behind"


class Unit(Protocol):
    """What the fleet needs of a ClusterUnit."""

    @property
    def name(self) -> str:
        """Name of the cluster."""
        ...

    @property
    def entry(self) -> ClusterEntry:
        """Its entry in the file."""
        ...

    @property
    def settings(self) -> Settings:
        """Its settings."""
        ...

    @property
    def service(self) -> SandboxService:
        """The operations on its sandboxes."""
        ...


class UnitCluster:
    """The FleetCluster of a unit. `on_back` is called when the cluster can be reached again."""

    def __init__(self, unit: Unit, on_back: Callable[[], None]) -> None:
        self.unit = unit
        self._cluster = unit.service.cluster
        self._kubectl = self._cluster.kubectl
        self._namespace = self._cluster.namespace
        self._tasks = BackgroundTasks()
        self.breaker = Breaker(unit.name, self._probe, on_back, self._cluster.deadlines)
        self.pictures = Pictures(self)
        # The marks of the creates that have made a Pod, by its uid.
        self._marks: ExpiringDict[str, str | None] = ExpiringDict(self._cluster.deadlines.settle, time.monotonic)
        # Uids of Pods that a create of this process has returned.
        self._returned: ExpiringDict[str, None] = ExpiringDict(self._cluster.deadlines.settle, time.monotonic)
        # Sandboxes that are to be withdrawn in the background: id, uid and mark.
        self._leftovers: set[tuple[str, str, str | None]] = set()
        self._has_ended = False
        self._successor: UnitCluster | None = None

    @property
    def _deadlines(self) -> Deadlines:
        return self._cluster.deadlines

    async def _probe(self) -> None:
        async with within(self._cluster.deadlines.ready):
            await self._kubectl.probe()

    async def look(self, sandbox_id: str) -> Look:
        """Read the Pod, then the marker, then the record of names."""
        pod_reference = kube.references_of(sandbox_id, self._namespace)[0]
        references = [
            pod_reference,
            self._config_map(marker_name(sandbox_id)),
            self._config_map(RECORD_NAME),
        ]
        found = {kube.key_of(obj): obj for obj in await self._read(lambda: read_in_order(self._kubectl, references))}
        pod = found.get(("Pod", kube.pod_name(sandbox_id)))
        if pod is not None and (kube.sandbox_id_of(pod) != sandbox_id or kube.is_terminating(pod)):
            pod = None
        marker = found.get(("ConfigMap", marker_name(sandbox_id)))
        record = found.get(("ConfigMap", RECORD_NAME))
        return Look(
            None if pod is None else pod_on(self.unit.name, pod),
            None if marker is None else believed(parse_marker(marker)),
            None if record is None else believed(parse_record(record)),
        )

    async def record(self) -> Record | None:
        """Read the record of names from the API server."""
        found = await self._read(lambda: read_in_order(self._kubectl, [self._config_map(RECORD_NAME)]))
        return believed(parse_record(found[0])) if found else None

    async def pods(self) -> dict[str, Pod]:
        """Read all Pods of sandboxes by id from the API server, without terminating ones."""
        collection = raw.sandboxes_of(self._namespace, "Pod")
        return pods_on(self.unit.name, await self._read(lambda: self._kubectl.list_objects(collection)))

    async def markers(self) -> list[Marker]:
        """Read all markers from the API server. One that is damaged is logged and left out."""
        collection = raw.config_maps_of_directory(self._namespace)
        return self._markers_among(await self._read(lambda: self._kubectl.list_objects(collection)))

    def seen(self, sandbox_id: str) -> Look | None:
        """Return what the live views have of the id, if that shows where it is; see FleetCluster.seen."""
        view = self._cluster.directory_view
        if view is None or not view.is_fresh or self.breaker.is_open:
            return None
        pod, _ = self._cluster.seen(sandbox_id)
        stored, names = view.get(marker_name(sandbox_id)), view.get(RECORD_NAME)
        if stored is None and (pod is None or not view.is_newer_than(pod)):
            return None
        marker = None if stored is None else parse_marker(stored)
        record = None if names is None else parse_record(names)
        if isinstance(marker, str) or isinstance(record, str):
            return None  # a read says what is wrong
        return Look(self.seen_pod(sandbox_id), marker, record)

    def seen_pod(self, sandbox_id: str) -> Pod | None:
        """Return the Pod from the live view if it is fresh, unless it is terminating; None is no proof."""
        pod, _ = self._cluster.seen(sandbox_id)
        if self.breaker.is_open or pod is None or kube.sandbox_id_of(pod) != sandbox_id or kube.is_terminating(pod):
            return None
        return pod_on(self.unit.name, pod)

    def still_has(self, record: Record) -> bool:
        """Whether the live view is fresh and shows this record of names, in this version; it may have changed since."""
        view = self._cluster.directory_view
        is_believed = view is not None and view.is_fresh and not self.breaker.is_open
        stored = view.get(RECORD_NAME) if view is not None and is_believed else None
        return stored is not None and parse_record(stored) == record

    def seen_pods(self, *, also_parts: bool = False) -> Mapping[str, Pod] | None:
        """Return all Pods of sandboxes by id from the live view; see FleetCluster.seen_pods."""
        if not self._cluster.is_fresh:
            return None
        pods = self._cluster.known_pods() if also_parts else (pod for pod, _ in self._cluster.known_all())
        return pods_on(self.unit.name, pods)

    def known_uid(self, sandbox_id: str) -> str | None:
        """Return the uid of the Pod that the live view has, however old it is, unless it is terminating."""
        pod, _ = self._cluster.known(sandbox_id)
        found = None if pod is None else pods_on(self.unit.name, [pod]).get(sandbox_id)
        return None if found is None else found.uid

    def seen_markers(self) -> list[Marker] | None:
        """Return all markers from the live view; None if it is not fresh."""
        view = self._cluster.directory_view
        return self._markers_among(view.objects()) if view is not None and view.is_fresh else None

    def _markers_among(self, objects: Iterable[KubeObject]) -> list[Marker]:
        markers = []
        for obj in objects:
            if obj["metadata"]["name"] != marker_name(kube.get_labels(obj).get(kube.ID_LABEL, "")):
                continue  # of a template
            marker = parse_marker(obj)
            if isinstance(marker, Marker):
                markers.append(marker)
            else:
                with in_cluster(self.unit.name):
                    logger.warning("cluster %s: %s", self.unit.name, marker)
        return markers

    async def make(
        self, request: CreateRequest, replaces: str, *, may_move: bool = False
    ) -> tuple[Made, SandboxResponse]:
        """Create the sandbox, or return the existing one; see Make. Returns its answer, too.

        Raises Unschedulable if the caller waits long enough for it, and time enough is left to try another cluster.
        """
        marks = {kube.PLACED_ANNOTATION: self.unit.name, **({REPLACES_ANNOTATION: replaces} if replaces else {})}
        async with self.breaker.guard():
            made = await self.unit.service.make(request, marks, left(self._deadlines.create))
        if made.is_new:
            self._marks.note(made.uid, made.mark)
            seconds = min(request.wait_seconds or 0.0, left(self._deadlines.create) - self._deadlines.unscheduled)
            if may_move and await self.unit.service.finds_no_node(request.sandbox_id, made.uid, seconds):
                raise Unschedulable(made.uid)
        return Made(made.uid, made.is_new, made.is_confirmed or made.uid in self._returned), made.answer

    async def withdraw(self, sandbox_id: str, uid: str, *, until_gone: bool = False) -> bool:
        """Delete the sandbox if its Pod has this uid and no create but the one that made it has returned it.

        As the rollback of a failed create, it has `undo` seconds even if the request has no more, and goes on in the
        background.
        """
        if uid not in self._marks:
            return False
        mark = self._marks.get(uid)
        seconds = max(self._deadlines.undo, left(self._deadlines.delete))
        try:
            async with self.breaker.guard():
                return await self.unit.service.withdrawals.withdraw(
                    sandbox_id, uid, mark, until_gone=until_gone, seconds=seconds
                )
        except (ClusterUnavailable, ClusterTimeout, ClusterRefused):
            self._leave_for_later(sandbox_id, uid, mark)
            raise

    def _leave_for_later(self, sandbox_id: str, uid: str, mark: str | None) -> None:
        if self._successor is not None:
            self._successor._leave_for_later(sandbox_id, uid, mark)  # noqa: SLF001 - of the same class
        elif self._has_ended:
            with in_cluster(self.unit.name):
                logger.warning(_LEFT_BEHIND, sandbox_id)
        else:
            self._leftovers.add((sandbox_id, uid, mark))
            self._tasks.start(self._withdraw_later(sandbox_id, uid, mark))

    async def _withdraw_later(self, sandbox_id: str, uid: str, mark: str | None) -> None:
        name_cluster(self.unit.name)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadlines.settle
        while loop.time() < end:
            await asyncio.sleep(self._deadlines.settle_pause)
            try:
                await self.unit.service.withdrawals.withdraw(sandbox_id, uid, mark)
            except ProvisionerError as error:
                logger.debug("sandbox %s is not withdrawn yet: %s", sandbox_id, error)
            else:
                self._leftovers.discard((sandbox_id, uid, mark))
                return
        self._leftovers.discard((sandbox_id, uid, mark))
        logger.error(_LEFT_BEHIND, sandbox_id)

    def end(self, successor: UnitCluster | None = None) -> None:
        """Start no more background work, since the cluster has left the file, or its unit was replaced.

        `successor`: adapter of the new unit, which goes on with what is to be withdrawn. Calls under way go on, and
        `finish` ends the work that was started before.
        """
        self._has_ended, self._successor = True, successor
        self.breaker.retire()
        leftovers, self._leftovers = self._leftovers, set()
        if successor is not None:
            successor._marks = self._marks  # noqa: SLF001 - of the same class
        for leftover in leftovers:
            self._leave_for_later(*leftover)

    async def finish(self) -> None:
        """End the background work."""
        await asyncio.gather(self.breaker.finish(), self.pictures.finish())
        await self._tasks.finish(0.0)

    async def confirm_pod(self, sandbox_id: str, uid: str, *, is_new: bool) -> bool:
        """Mark the Pod with this uid as returned to a caller; False if it is gone."""
        mark = self._marks.get(uid) if is_new else None
        async with self.breaker.guard():
            is_there = await self.unit.service.confirm(sandbox_id, uid, mark)
        if is_there:
            self._returned.note(uid, None)
        return is_there

    async def delete_unreturned(self, sandbox_id: str, uid: str) -> bool:
        """Delete the sandbox if its Pod has this uid and no create has returned it; False if one has."""
        async with self.breaker.guard():
            return await self.unit.service.withdrawals.withdraw(sandbox_id, uid, None, anyones=True)

    async def delete(self, sandbox_id: str) -> None:
        """Delete the sandbox, if it exists."""
        async with self.breaker.guard(), within(left(self._deadlines.delete)):
            await self.unit.service.delete(sandbox_id)

    async def delete_pod(self, sandbox_id: str, uid: str) -> None:
        """Delete the sandbox if its Pod has exactly this uid, whoever has returned it."""
        async with self.breaker.guard():
            await self.unit.service.withdrawals.withdraw(sandbox_id, uid, None, confirmed=True)

    async def create_marker(self, marker: Marker) -> Marker:
        """Create the marker and return it as stored."""
        obj = build_marker(marker, self._namespace)
        (stored,) = await self._write(lambda: self._kubectl.create([obj]))
        return believed(parse_marker(stored))

    async def update_marker(self, marker: Marker) -> Marker:
        """Replace the marker with this version and return it as stored."""
        obj = build_marker(marker, self._namespace)
        return believed(parse_marker(await self._write(lambda: replace(self._kubectl, obj))))

    async def delete_marker(self, marker: Marker) -> None:
        """Delete the marker with this version."""
        obj = build_marker(marker, self._namespace)
        if not await self._write(lambda: self._kubectl.delete_exactly(obj)):
            raise PreconditionFailed("The marker is gone")

    async def put_record(self, record: Record) -> Record:
        """Create or replace the record under its version, and return it as stored."""
        obj = build_record(record, self._namespace)
        if record.version:
            return believed(parse_record(await self._write(lambda: replace(self._kubectl, obj))))
        (stored,) = await self._write(lambda: self._kubectl.create([obj]))
        return believed(parse_record(stored))

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._in_time():
                return await persist(call)
        except ClusterRefused as error:  # whatever the reason, it is no answer
            raise NotReadable(error.public, detail=error.detail) from error

    async def _write(self, call: Callable[[], Awaitable[T]]) -> T:
        """Write, again after a failure of the connection; not if the object is not as expected."""

        async def attempt() -> T | ObjectsChanged:
            try:
                return await call()
            except ObjectsChanged as error:
                return error

        outcome = await self._read(attempt)
        if isinstance(outcome, ObjectsChanged):
            raise outcome
        return outcome

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Limit a call to the time of a read, or to what is left of the request's.

        If that is too short to say that the cluster gives no answer, OutOfTime is raised in place of ClusterTimeout.
        """
        seconds = left(self._deadlines.read)
        async with self.breaker.guard(is_read=True):
            try:
                async with within(seconds):
                    yield
            except ClusterTimeout as error:
                if seconds < self._deadlines.read / 2:
                    raise OutOfTime(detail=error.detail) from error
                raise

    def _config_map(self, name: str) -> KubeObject:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": self._namespace}}
