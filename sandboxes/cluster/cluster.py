"""Reads and writes the sandboxes' namespace of one cluster: from the informer if it is fresh, with retries.

All state of a cluster belongs to its `Cluster`, so that a second cluster only needs a second instance.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from sandboxes import objects as kube
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.cluster.retry import persist
from sandboxes.cluster.server_clock import ServerClock
from sandboxes.cluster.terminations import TerminationLog
from sandboxes.deadlines import DEADLINES, Deadlines
from sandboxes.errors import AlreadyThere, ClusterRefused, LimitReached, ProvisionerError
from sandboxes.expiry import present, time_of
from sandboxes.kubectl.output import check_changed
from sandboxes.kubectl.raw import sandboxes_of
from sandboxes.objects import of_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sandboxes.cluster.directory_view import DirectoryView
    from sandboxes.cluster.informer import Informer
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import KubeObject
    from sandboxes.tasks import Signal

logger = logging.getLogger(__name__)


class ObjectCalls(Protocol):
    """The calls of Kubectl that can be batched."""

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Apply objects and return them as they are stored."""
        ...

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the object if its uid is unchanged."""
        ...

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Return those of the named objects that exist."""
        ...

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """Return every Pod and Service with the sandboxes' label."""
        ...

    async def delete(self, references: list[KubeObject]) -> None:
        """Delete the named objects."""
        ...


class Batches(ObjectCalls, Protocol):
    """Batched ObjectCalls; see BatchedKubectl."""

    began: Signal[[str, int]]

    async def discard(self, objects: list[KubeObject]) -> None:
        """Delete the objects if they are unchanged."""
        ...

    def queues(self) -> dict[str, int]:
        """Return the number of waiting items by kind of work."""
        ...


@dataclass(frozen=True)
class InformerState:
    """State of the informer.

    `age`: seconds since it was proven current. `watching`: running watches. `restarts`: failed watches by resource.
    """

    is_fresh: bool
    age: float
    watching: int
    restarts: dict[str, int]


@dataclass(frozen=True)
class Cluster:
    """Reads and writes one namespace; each write is visible to the next read.

    `informer`: private to this package; with a NoInformer every read goes to the cluster. `batched`: combines
    concurrent calls; None for separate ones.

    Methods that call the cluster retry transient errors (`retry.py`); the caller limits the time.
    """

    kubectl: Kubectl
    informer: Informer | NoInformer
    namespace: str
    # NetworkPolicies that the namespace must have before any sandbox.
    policies: tuple[KubeObject, ...] = ()
    terminations: TerminationLog = field(default_factory=TerminationLog)
    deadlines: Deadlines = DEADLINES
    batched: Batches | None = None
    # What the directory of several clusters notes in this one.
    directory_view: DirectoryView | None = None
    server_clock: ServerClock = field(default_factory=ServerClock)

    @property
    def _objects(self) -> ObjectCalls:
        return self.batched or self.kubectl

    def queues(self) -> dict[str, int]:
        """Return the number of waiting items by kind of work; `process`: calls that wait for a kubectl process."""
        return {"process": self.kubectl.waiting, **(self.batched.queues() if self.batched else {})}

    def __post_init__(self) -> None:
        self.informer.exchanged.connect(self.terminations.on_exchange)
        self.informer.exchanged.connect(self._on_exchange)

    def _on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None and new is not None:
            self.server_clock.note([new])

    @property
    def has_informer(self) -> bool:
        """Whether reads can be answered from an informer."""
        return not isinstance(self.informer, NoInformer)

    @property
    def changed(self) -> Signal[[str, str]]:
        """Sent after each change in the informer, with the object's kind and name."""
        return self.informer.changed

    @property
    def exchanged(self) -> Signal[[KubeObject | None, KubeObject | None]]:
        """Sent after each change in the informer, with the object before and after it."""
        return self.informer.exchanged

    @property
    def is_fresh(self) -> bool:
        """Whether the informer is fresh; see `Informer.is_fresh`."""
        return self.informer.is_fresh

    @property
    def informer_state(self) -> InformerState:
        """Current state of the informer, for health checks and metrics."""
        one = self.informer
        parts = [one] if self.directory_view is None else [one, self.directory_view]
        restarts = {resource: count for part in parts for resource, count in part.restarts().items()}
        return InformerState(one.is_fresh, one.age, sum(part.watching for part in parts), restarts)

    @property
    def pods_age(self) -> float:
        """Seconds since the cached Pods were last proven current; see `Informer.pods_age`."""
        return self.informer.pods_age

    @property
    def pods_are_current(self) -> bool:
        """Whether the cached Pods are kept current at the moment; see `Informer.pods_are_current`."""
        return self.informer.pods_are_current

    async def becomes_fresh(self) -> None:
        """Wait until the informer is fresh; forever without one."""
        await self.informer.becomes_fresh()

    def known(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the cached Pod and Service of a sandbox, fresh or not."""
        return self.informer.sandbox(sandbox_id)

    def is_certain(self, sandbox_id: str) -> bool:
        """Whether reads of this sandbox may use the informer; see `Informer.is_certain`."""
        return self.informer.is_certain(sandbox_id)

    def seen_all(self) -> Iterator[tuple[KubeObject, KubeObject | None]] | None:
        """Return (Pod, Service) of every sandbox that has what it needs; None if the informer can't be used."""
        return self.informer.sandboxes() if self.informer.is_certain_of_all else None

    def known_all(self) -> Iterator[tuple[KubeObject, KubeObject | None]]:
        """Return the cached (Pod, Service) of every sandbox that has what it needs, fresh or not."""
        return self.informer.sandboxes()

    def known_pods(self) -> Iterator[KubeObject]:
        """Return the cached Pods of all sandboxes, also those without their Service, fresh or not."""
        return (obj for obj in self.informer.objects() if obj["kind"] == "Pod")

    def seen(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the Pod and Service of a sandbox from the informer if it can be used; None does not prove absence."""
        return self.informer.sandbox(sandbox_id) if self.informer.is_certain(sandbox_id) else (None, None)

    async def all_objects(self) -> list[KubeObject]:
        """Return all Pods and Services of sandboxes, from the informer if it can be used."""
        if self.informer.is_certain_of_all:
            return list(self.informer.objects())
        return await self.list_live()

    async def look(self, sandbox_id: str, *, urgent: bool = False) -> tuple[KubeObject | None, KubeObject | None]:
        """Read the Pod and Service of a sandbox from the API server."""
        references = kube.references_of(sandbox_id, self.namespace)
        before = self.informer.before_read(sandbox_id)
        objects = await persist(lambda: self._objects.get(references, urgent=urgent))
        self.informer.note_read(sandbox_id, objects, before)
        self.server_clock.note(objects)
        return of_kind("Pod", objects), of_kind("Service", objects)

    async def list_live(self, *, only_pods: bool = False) -> list[KubeObject]:
        """Read all Pods and Services of sandboxes, or the Pods alone, from the API server."""
        if only_pods:
            return await persist(lambda: self.kubectl.list_objects(sandboxes_of(self.namespace, "Pod")))
        return await persist(lambda: self._objects.list_sandboxes(self.namespace))

    async def find(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Read the referenced objects from the API server; return those that exist."""
        return await persist(lambda: self._objects.get(references, urgent=urgent))

    async def list_extras(self) -> list[KubeObject]:
        """List the objects of templates; see Kubectl.list_extras."""
        return await persist(lambda: self.kubectl.list_extras(self.namespace))

    async def create(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Create objects and return them as stored; none if one existed already, then others may or may not exist."""

        async def create() -> list[KubeObject]:
            try:
                return await self.kubectl.create(objects)
            except AlreadyThere:  # possibly created by an earlier attempt that was cut off
                return []

        stored = await persist(create)
        self.server_clock.note(stored)
        self.informer.note(stored)
        return stored

    async def apply(self, objects: list[KubeObject], *, over: Sequence[KubeObject] = ()) -> list[KubeObject]:
        """Apply objects and return them as stored.

        `over`: existing objects, as read before, that the apply must change. Raises ClusterUnavailable if one was not
        changed.
        """
        stored = await persist(lambda: self._objects.apply(objects))
        check_changed(stored, over)
        self.server_clock.note(stored)
        self.informer.note(stored)
        return stored

    async def measure_clock(self, obj: KubeObject) -> datetime | None:
        """Return a time that the API server's clock has reached, measured by a dry run of `obj`, which is not there.

        None if it can't be measured, since the cluster refuses that.
        """
        try:
            self.server_clock.note(await persist(lambda: self.kubectl.dry_run([obj])), just_created=True)
        except (ClusterRefused, LimitReached) as error:
            logger.warning("the API server's clock can't be measured: %s\n%s", error, error.detail)
        return self.server_clock.at_least()

    async def has_reached(self, time: datetime, obj: KubeObject) -> bool:
        """Whether the API server's clock shows `time` or later; `obj`: see `measure_clock`.

        Only where that can't be measured, the service's own clock counts.
        """
        reached = self.server_clock.at_least()
        if (reached is None or reached < time) and not self.server_clock.is_exact:
            reached = await self.measure_clock(obj)
        if reached is not None and (reached >= time or self.server_clock.is_exact):
            return reached >= time
        return present() >= time

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the object if its uid is unchanged, and return it as stored; see Kubectl.annotate."""
        stored = await persist(lambda: self._objects.annotate(obj, annotations, manager=manager))
        self.informer.note([stored])
        return stored

    async def delete(self, sandbox_id: str) -> None:
        """Delete the Pod and Service of a sandbox, if they exist, without waiting until they are gone.

        Objects that have these names but not the labels are kept: the Pod of a StatefulSet `sandbox-redis`, or of the
        provisioner's own Deployment.
        """
        pair = self.seen(sandbox_id)
        # A Service that the view does not show yet is left to the reaper: a sandbox behind the gateway rarely has one.
        if None in pair and not (pair[0] is not None and kube.is_behind_gateway(pair[0])):
            pair = await self.look(sandbox_id)
        if any(obj is not None and self._is_about_to_go(obj) for obj in pair):
            pair = await self._wait_for_rollback(sandbox_id)
        owned = [obj for obj in pair if obj is not None and kube.sandbox_id_of(obj) == sandbox_id]
        if not owned:
            return
        self.terminations.expect(
            {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in owned if obj["kind"] == "Pod"}
        )
        references = [kube.reference(obj) for obj in owned]
        try:
            await persist(lambda: self._objects.delete(references))
        except (ProvisionerError, asyncio.CancelledError):
            self.informer.doubt(sandbox_id)
            raise
        self.informer.note_deleted(owned)

    def _is_about_to_go(self, obj: KubeObject) -> bool:
        """Whether a rollback may still delete the object by name, and would delete a successor, too."""
        if not kube.is_refused(obj) or kube.is_being_deleted(obj):
            return False
        marked_at = time_of(obj, kube.REFUSED_ANNOTATION)
        return marked_at is not None and present() - marked_at < timedelta(seconds=self.deadlines.marked)

    async def _wait_for_rollback(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the Pod and the Service once no rollback deletes them any more.

        Waits no longer than `marked` seconds, however wrong the clock is of the replica that has marked them.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self.deadlines.marked
        while True:
            pair = await self.look(sandbox_id)
            if loop.time() >= end or not any(obj is not None and self._is_about_to_go(obj) for obj in pair):
                return pair
            await asyncio.sleep(self.deadlines.gone_pauses[-1])

    async def delete_exactly(self, obj: KubeObject, *, urgent: bool = False, force: bool = False) -> bool:
        """Delete the object if its resourceVersion is unchanged; return False if it was gone already.

        Raises PreconditionFailed if it was modified or replaced. `force`: see Kubectl.delete_exactly.
        """
        if obj["kind"] == "Pod":
            self.terminations.expect({obj["metadata"]["name"]: obj["metadata"]["uid"]})
        was_there = await persist(lambda: self.kubectl.delete_exactly(obj, urgent=urgent, force=force))
        self.informer.note_deleted([obj])
        return was_there

    async def discard(self, objects: list[KubeObject]) -> None:
        """Delete the objects of a failed create if their resourceVersions are unchanged, together with those of others.

        Raises PreconditionFailed if one was modified or replaced. Needs the right to patch them.
        """
        if self.batched is None:
            for obj in objects:
                await self.delete_exactly(obj, urgent=True)
            return
        batched = self.batched
        self.terminations.expect(
            {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in objects if obj["kind"] == "Pod"}
        )
        await persist(lambda: batched.discard(objects))
        self.informer.note_deleted(objects)

    async def is_gone(self, obj: KubeObject) -> bool:
        """Whether the object with this uid is gone."""
        found = await persist(lambda: self._objects.get([kube.reference(obj)]))
        return not found or bool(found[0]["metadata"]["uid"] != obj["metadata"]["uid"])

    async def events_of(self, obj: KubeObject) -> list[KubeObject]:
        """Return the Events of this object; see Kubectl.events_of."""
        return await persist(lambda: self.kubectl.events_of(obj))

    async def logs(self, pod: KubeObject, container: str, *, lines: int, most: int, previous: bool = False) -> bytes:
        """Return the last lines of a container's log; see Kubectl.logs."""
        return await persist(lambda: self.kubectl.logs(pod, container, lines=lines, most=most, previous=previous))

    async def make_namespace(self) -> None:
        """Create the namespace if it does not exist, and apply its policies."""
        await persist(lambda: self.kubectl.ensure_namespace(self.namespace))
        await self.apply_policies()

    async def apply_policies(self) -> None:
        """Apply the NetworkPolicies of the namespace."""
        if self.policies:
            await self.apply(list(self.policies))
