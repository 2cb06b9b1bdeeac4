"""One cluster: its namespace, read by the informer where that may answer, and written with retries.

Whatever belongs to one cluster hangs here, so that a second cluster is a second object and no new mechanism.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sandboxes import objects as kube
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.cluster.retry import persist
from sandboxes.cluster.terminations import TerminationLog
from sandboxes.deadlines import DEADLINES, Deadlines
from sandboxes.errors import AlreadyThere, ProvisionerError
from sandboxes.kubectl.output import check_changed
from sandboxes.objects import of_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandboxes.cluster.informer import Informer
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import KubeObject
    from sandboxes.tasks import Signal


class ObjectCalls(Protocol):
    """The calls of kubectl that may be done for many at once; see Kubectl."""

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Apply objects and return them as they are stored."""
        ...

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the very object that was read."""
        ...

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Return those of the named objects that exist."""
        ...

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """Return every Pod and Service with the label of sandboxes."""
        ...

    async def delete(self, references: list[KubeObject]) -> None:
        """Delete the named objects."""
        ...


class Batches(ObjectCalls, Protocol):
    """The same calls, in batches."""

    began: Signal[[str, int]]

    def queues(self) -> dict[str, int]:
        """Return how much waits now, by kind of work."""
        ...


@dataclass(frozen=True)
class InformerState:
    """How the informer is. `age`: seconds since it was confirmed; `restarts`: of watches that failed, by resource."""

    is_fresh: bool
    age: float
    watching: int
    restarts: dict[str, int]


@dataclass(frozen=True)
class Cluster:
    """What reads and writes one namespace: each write is seen by the next read.

    `informer`: keeps what the cluster holds; with a NoInformer every read goes to the cluster. Nothing outside this
    package asks it. `batched`: does what arrives together in one call; without it each is a call of its own.

    Each method tries again what may pass by itself (`retry.py`), for as long as the caller's own limit lets it.
    """

    kubectl: Kubectl
    informer: Informer | NoInformer
    namespace: str
    # What stands in the namespace before any sandbox does.
    policies: tuple[KubeObject, ...] = ()
    terminations: TerminationLog = field(default_factory=TerminationLog)
    deadlines: Deadlines = DEADLINES
    batched: Batches | None = None

    @property
    def _objects(self) -> ObjectCalls:
        return self.batched or self.kubectl

    def queues(self) -> dict[str, int]:
        """Return how much waits now, by kind of work; `process`: calls that wait for a process of kubectl."""
        return {"process": self.kubectl.waiting, **(self.batched.queues() if self.batched else {})}

    def __post_init__(self) -> None:
        self.informer.exchanged.connect(self.terminations.on_exchange)

    @property
    def has_informer(self) -> bool:
        """Whether an informer keeps what the cluster holds."""
        return not isinstance(self.informer, NoInformer)

    @property
    def changed(self) -> Signal[[str, str]]:
        """Sent after each change that the informer sees, with the object's kind and name."""
        return self.informer.changed

    @property
    def exchanged(self) -> Signal[[KubeObject | None, KubeObject | None]]:
        """Sent after each change that the informer sees, with the object as it was and as it is."""
        return self.informer.exchanged

    @property
    def is_fresh(self) -> bool:
        """Whether the informer may answer for the cluster."""
        return self.informer.is_fresh

    @property
    def informer_state(self) -> InformerState:
        """How the informer is now, for those who look after the process."""
        one = self.informer
        return InformerState(one.is_fresh, one.age, one.watching, one.restarts())

    async def becomes_fresh(self) -> None:
        """Return as soon as the informer may answer for the cluster; never, without one."""
        await self.informer.becomes_fresh()

    def known(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return a sandbox's Pod and Service as far as the informer knows them, whether it is fresh or not."""
        return self.informer.sandbox(sandbox_id)

    def is_certain(self, sandbox_id: str) -> bool:
        """Whether the informer may answer for this sandbox, also that there is none."""
        return self.informer.is_certain(sandbox_id)

    def seen_all(self) -> Iterator[tuple[KubeObject, KubeObject]] | None:
        """Return the Pod and the Service of every sandbox that has both; None where the informer may not answer."""
        return self.informer.sandboxes() if self.informer.is_certain_of_all else None

    def known_all(self) -> Iterator[tuple[KubeObject, KubeObject]]:
        """Return the same of all sandboxes as far as the informer knows them."""
        return self.informer.sandboxes()

    def seen(self, sandbox_id: str) -> tuple[KubeObject | None, KubeObject | None]:
        """Return a sandbox's Pod and Service from the view, where it may answer for it; a miss proves nothing."""
        return self.informer.sandbox(sandbox_id) if self.informer.is_certain(sandbox_id) else (None, None)

    async def all_objects(self) -> list[KubeObject]:
        """Return every sandbox's Pod and Service, from the view where it may answer for all."""
        if self.informer.is_certain_of_all:
            return list(self.informer.objects())
        return await self.list_live()

    async def look(self, sandbox_id: str, *, urgent: bool = False) -> tuple[KubeObject | None, KubeObject | None]:
        """Read a sandbox's Pod and Service from the cluster itself."""
        references = kube.references_of(sandbox_id, self.namespace)
        before = self.informer.before_read(sandbox_id)
        objects = await persist(lambda: self._objects.get(references, urgent=urgent))
        self.informer.note_read(sandbox_id, objects, before)
        return of_kind("Pod", objects), of_kind("Service", objects)

    async def list_live(self) -> list[KubeObject]:
        """Read every sandbox's Pod and Service from the cluster itself."""
        return await persist(lambda: self._objects.list_sandboxes(self.namespace))

    async def find(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Read those of the named objects that exist, of whatever kind, from the cluster itself."""
        return await persist(lambda: self._objects.get(references, urgent=urgent))

    async def list_extras(self) -> list[KubeObject]:
        """List what templates brought, see Kubectl.list_extras."""
        return await persist(lambda: self.kubectl.list_extras(self.namespace))

    async def create(self, objects: list[KubeObject]) -> bool:
        """Make new objects; whether all were made. Else one was there already, and nothing is known of the others."""

        async def create() -> bool:
            try:
                await self.kubectl.create(objects)
            except AlreadyThere:  # may be our own, of a try that was cut off
                return False
            return True

        return await persist(create)

    async def apply(self, objects: list[KubeObject], *, over: Sequence[KubeObject] = ()) -> list[KubeObject]:
        """Apply and return the objects as they are stored.

        `over`: what is there already, as it was read, and must be changed by this. Raises ClusterUnavailable if it was
        not.
        """
        stored = await persist(lambda: self._objects.apply(objects))
        check_changed(stored, over)
        self.informer.note(stored)
        return stored

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the very object that was read, see Kubectl.annotate; return it as it is stored."""
        stored = await persist(lambda: self._objects.annotate(obj, annotations, manager=manager))
        self.informer.note([stored])
        return stored

    async def delete(self, sandbox_id: str) -> None:
        """Have a sandbox's Pod and Service deleted, whatever of them there is, and nothing else that has their names.

        Others may have such names: the Pod of a StatefulSet `sandbox-redis`, or of the provisioner's own Deployment.
        """
        pair = self.seen(sandbox_id)
        if None in pair:
            pair = await self.look(sandbox_id)
        ours = [obj for obj in pair if obj is not None and kube.sandbox_id_of(obj) == sandbox_id]
        if not ours:
            return
        self.terminations.expect(
            {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in ours if obj["kind"] == "Pod"}
        )
        references = [kube.reference(obj) for obj in ours]
        try:
            await persist(lambda: self._objects.delete(references))
        except (ProvisionerError, asyncio.CancelledError):
            self.informer.doubt(sandbox_id)
            raise
        self.informer.note_deleted(ours)

    async def delete_exactly(self, obj: KubeObject, *, urgent: bool = False) -> bool:
        """Delete the very version of an object that was read; whether it was there, and not gone already.

        Raises PreconditionFailed if it is another by now.
        """
        if obj["kind"] == "Pod":
            self.terminations.expect({obj["metadata"]["name"]: obj["metadata"]["uid"]})
        was_there = await persist(lambda: self.kubectl.delete_exactly(obj, urgent=urgent))
        self.informer.note_deleted([obj])
        return was_there

    async def is_gone(self, obj: KubeObject) -> bool:
        """Whether the very object that was read is no more there."""
        found = await persist(lambda: self._objects.get([kube.reference(obj)]))
        return not found or bool(found[0]["metadata"]["uid"] != obj["metadata"]["uid"])

    async def events_of(self, obj: KubeObject) -> list[KubeObject]:
        """Return the Events about this very object, see Kubectl.events_of."""
        return await persist(lambda: self.kubectl.events_of(obj))

    async def logs(self, pod: KubeObject, container: str, *, lines: int, most: int, previous: bool = False) -> bytes:
        """Return the last lines of a container's log, see Kubectl.logs."""
        return await persist(lambda: self.kubectl.logs(pod, container, lines=lines, most=most, previous=previous))

    async def make_namespace(self) -> None:
        """Make the namespace if it is missing, with its policies."""
        await persist(lambda: self.kubectl.ensure_namespace(self.namespace))
        await self.apply_policies()

    async def apply_policies(self) -> None:
        """Apply what stands in the namespace before any sandbox does."""
        if self.policies:
            await self.apply(list(self.policies))
