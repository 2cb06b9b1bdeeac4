"""In-memory clusters, what callers were told of them, and the promises.

Every call to a cluster waits at a point for its fate, which the test chooses. What a call does is done at once then.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sandboxes.errors import AlreadyThere, ClusterTimeout, ConnectionFailed, LimitReached, PreconditionFailed
from sandboxes.fleet.markers import Marker, Record
from sandboxes.fleet.protocol import Look, Made, Pod, Unschedulable
from tests.unit.fleet_tasks import point

T = TypeVar("T")


class Broken(AssertionError):
    """A promise is broken."""


@dataclass
class Sandbox:
    """A Pod. `mark`: of the last create that has applied it; `returned_by`: of its maker, about to return it.

    `is_confirmed`: a create that did not make it is about to return it.
    """

    uid: str
    replaces: str = ""
    mark: str = ""
    returned_by: str = ""
    is_confirmed: bool = False

    def may_be_withdrawn(self, mark: str) -> bool:
        return not self.is_confirmed and self.mark == mark and self.returned_by in ("", mark)


@dataclass
class World:
    """The truth: all clusters, and what callers were told. `gone`: uids, by what deleted them."""

    clusters: dict[str, MemoryCluster] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    # Calls that arrive late, and deletes of failed creates.
    late: list[tuple[str, Callable[[], object]]] = field(default_factory=list)
    returned: dict[str, set[str]] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)
    gone: dict[str, str] = field(default_factory=dict)
    replaced: set[tuple[str, str]] = field(default_factory=set)
    ever_lost: set[str] = field(default_factory=set)
    # Uids of Pods whose deletion was accepted, and which may still run.
    ending: set[str] = field(default_factory=set)

    def number(self) -> str:
        return str(next(self.numbers))

    def add(self, *names: str) -> None:
        for name in names:
            self.clusters[name] = MemoryCluster(self, name)

    def alive(self, sandbox_id: str) -> dict[str, Sandbox]:
        return {name: one.sandboxes[sandbox_id] for name, one in self.clusters.items() if sandbox_id in one.sandboxes}

    def unreturned(self, sandbox_id: str) -> set[str]:
        """Return the living Pods that are not marked as returned."""
        pods = self.alive(sandbox_id).values()
        return {one.uid for one in pods if not (one.is_confirmed or one.returned_by)}

    def confirmed(self, sandbox_id: str) -> set[str]:
        """Return the living Pods that a create has returned."""
        return {one.uid for one in self.alive(sandbox_id).values()} & self.created

    def remove(self, cluster: str, sandbox_id: str, why: str) -> None:
        uid = self.clusters[cluster].sandboxes.pop(sandbox_id).uid
        self.gone[uid] = why
        if why in ("withdrawn", "rolled back") and uid in self.created:
            raise Broken(f"falsely deleted: {sandbox_id} on {cluster} was {why}")

    def give_up(self, sandbox_id: str) -> None:
        """Promise nothing any more of what a lost cluster has of an id that a caller has deleted."""
        lost = {one.uid for name, one in self.alive(sandbox_id).items() if name in self.ever_lost}
        self.created -= lost
        self.returned.get(sandbox_id, set()).difference_update(lost)

    def tell(self, sandbox_id: str, uid: str, *, is_create: bool) -> None:
        """Note that a caller was told of this Pod."""
        if is_create:
            if self.gone.get(uid) in ("withdrawn", "rolled back"):
                raise Broken(f"falsely deleted: {sandbox_id} was {self.gone[uid]} before it was returned")
            self.created.add(uid)
        self.returned.setdefault(sandbox_id, set()).add(uid)
        self.check(sandbox_id)

    def check(self, sandbox_id: str) -> None:
        """Never twice: of the living Pods that callers were told of, all but one are being replaced."""
        told = self.returned.get(sandbox_id, set())
        living = {(name, one.uid): one for name, one in self.alive(sandbox_id).items() if one.uid in told}
        replaced = {one.replaces for one in living.values() if one.replaces}
        left = [key for key in living if f"{key[0]}/{key[1]}" not in replaced and f"{key[0]}/unknown" not in replaced]
        if len(left) > 1:
            raise Broken(f"twice: {sandbox_id} is on {left}")


class MemoryCluster:
    """FleetCluster. `room`: Pods that it takes; `cramped`: new ones find no node.

    `marks`: of the creates of one replica that have made a Pod, by its uid; each replica has its own `seat`.
    """

    marks: dict[str, str]

    def __init__(self, world: World, name: str) -> None:
        self.marks = {}
        self.world, self.name = world, name
        self.is_up, self.room, self.cramped = True, 100, False
        self.sandboxes: dict[str, Sandbox] = {}
        self.stored: dict[str, Marker] = {}
        self.names: Record | None = None

    def seat(self) -> MemoryCluster:
        return Seat(self)

    async def call(self, effect: Callable[[], T], *, may_be_late: bool = True) -> T:
        fate = await point()
        if fate == "late" and may_be_late:
            self.world.late.append((self.name, effect))
            raise ClusterTimeout
        if not self.is_up or fate in ("refused", "late"):
            raise ConnectionFailed(f"{self.name} is away")
        result = effect()
        if fate == "lost":
            raise ConnectionFailed(f"{self.name} is away")
        return result

    def _read(self, effect: Callable[[], T]) -> Awaitable[T]:
        return self.call(effect, may_be_late=False)

    def _pod(self, sandbox_id: str) -> Pod | None:
        one = self.sandboxes.get(sandbox_id)
        return self._as_read(one) if one else None

    def _as_read(self, one: Sandbox) -> Pod:
        return Pod(one.uid, one.replaces, not (one.is_confirmed or one.returned_by))

    async def look(self, sandbox_id: str) -> Look:
        pod = await self._read(lambda: self._pod(sandbox_id))
        marker = await self._read(lambda: self.stored.get(sandbox_id))
        return Look(pod, marker, await self._read(lambda: self.names))

    async def record(self) -> Record | None:
        return await self._read(lambda: self.names)

    async def pods(self) -> Mapping[str, Pod]:
        return await self._read(lambda: {key: self._as_read(one) for key, one in self.sandboxes.items()})

    async def markers(self) -> list[Marker]:
        return await self._read(lambda: list(self.stored.values()))

    def seen(self, sandbox_id: str) -> None:
        """Return None: without live views everything is read."""

    def seen_pods(self, *, also_parts: bool = False) -> None: ...

    def still_has(self, _record: Record) -> bool:
        return False

    seen_pod, seen_markers = seen, seen_pods

    async def make(self, sandbox_id: str, replaces: str, *, waits: bool) -> Made:
        """SandboxService.create: a Pod can be seen before its create has returned, and is rolled back if it fails.

        An apply onto a Pod that was not there when it was looked for can't be told from one that makes it.
        """

        def apply() -> Made:
            there = self.sandboxes.get(sandbox_id)
            # The creates of one id wait for each other in one replica, which knows what it has written.
            is_known = there is not None and (was_there or there.uid in self.marks)
            if there is not None and not is_known:
                there.mark = mark
            if there is not None and (is_known or there.is_confirmed or there.returned_by):
                return Made(there.uid, is_new=False, is_confirmed=there.is_confirmed)
            if there is not None:
                mine.append(there.uid)
                return Made(there.uid, is_new=True)
            if len(self.sandboxes) >= self.room:
                raise LimitReached("full")
            uid = f"uid-{self.world.number()}"
            self.sandboxes[sandbox_id] = Sandbox(uid, replaces, mark)
            mine.append(uid)
            return Made(uid, is_new=True)

        mine: list[str] = []
        mark = self.world.number()
        was_there = await self.call(lambda: sandbox_id in self.sandboxes, may_be_late=False)
        try:
            made = await self.call(apply)
            if made.is_new:
                await self.call(lambda: None)
        except (ConnectionFailed, ClusterTimeout):
            self.world.late.append(
                (self.name, lambda: [self._withdraw(sandbox_id, uid, mark, "rolled back") for uid in mine])
            )
            raise
        if made.is_new:
            self.marks[made.uid] = mark
        # If the cluster can't be asked meanwhile, it is not known whether a node was found.
        if made.is_new and waits and await point() == "done" and self.cramped:
            raise Unschedulable(made.uid)
        return made

    def _withdraw(self, sandbox_id: str, uid: str, mark: str, why: str) -> bool:
        there = self.sandboxes.get(sandbox_id)
        if there is None or there.uid != uid:
            return True
        if not there.may_be_withdrawn(mark):
            return False
        self.world.remove(self.name, sandbox_id, why)
        return True

    def force(self, sandbox_id: str, uid: str) -> None:
        """Delete as `withdraw`, but whoever has returned the Pod."""
        there = self.sandboxes.get(sandbox_id)
        if there is not None and there.uid == uid:
            self.world.remove(self.name, sandbox_id, "withdrawn")

    async def withdraw(self, sandbox_id: str, uid: str, *, until_gone: bool = False) -> bool:
        def withdraw() -> bool:
            was_gone = uid in self.world.gone
            is_over = self._withdraw(sandbox_id, uid, mark, "withdrawn")
            if is_over and not was_gone:  # one that was proven gone does not end again
                self.world.ending.add(uid)
            return is_over

        mark = self.marks.get(uid, "")
        if not mark:
            return False
        try:
            if not await self.call(withdraw):
                return False
            if until_gone:
                await self.call(lambda: self.world.ending.discard(uid))
        except (ConnectionFailed, ClusterTimeout):  # it goes on in the background
            self.world.late.append((self.name, lambda: self._withdraw(sandbox_id, uid, mark, "withdrawn")))
            raise
        return True

    async def confirm_pod(self, sandbox_id: str, uid: str, *, is_new: bool) -> bool:
        def there() -> Sandbox | None:
            found = self.sandboxes.get(sandbox_id)
            return found if found is not None and found.uid == uid else None

        def return_it() -> str | None:
            if (one := there()) is not None:
                one.returned_by = mark
            return None if one is None else one.mark

        def confirm() -> bool:
            if (one := there()) is not None:
                one.is_confirmed = True
            return one is not None

        mark = self.marks[uid] if is_new else ""
        if is_new and (last := await self.call(return_it)) in (None, mark):
            return last is not None
        return await self.call(confirm)

    async def delete_unreturned(self, sandbox_id: str, uid: str) -> bool:
        def delete() -> bool:
            if uid not in self.world.unreturned(sandbox_id):
                return False
            self.world.remove(self.name, sandbox_id, "withdrawn")
            return True

        return await self.call(delete)

    async def delete(self, sandbox_id: str) -> None:
        def delete() -> None:
            if sandbox_id in self.sandboxes:
                self.world.remove(self.name, sandbox_id, "deleted")
                self.world.give_up(sandbox_id)

        await self.call(delete, may_be_late=False)

    async def delete_pod(self, sandbox_id: str, uid: str) -> None:
        def delete() -> None:
            there = self.sandboxes.get(sandbox_id)
            if there is not None and there.uid == uid:
                if (self.name, uid) not in self.world.replaced:
                    raise Broken(f"falsely deleted: {sandbox_id} on {self.name} was not replaced")
                self.world.remove(self.name, sandbox_id, "replaced")

        await self.call(delete)

    def _store(self, marker: Marker) -> Marker:
        stored = replace(marker, version=self.world.number())
        self.stored[marker.sandbox_id] = stored
        return stored

    def _expect(self, marker: Marker) -> None:
        there = self.stored.get(marker.sandbox_id)
        if there is None or there.version != marker.version:
            raise PreconditionFailed("changed")

    async def create_marker(self, marker: Marker) -> Marker:
        def create() -> Marker:
            if marker.sandbox_id in self.stored:
                raise AlreadyThere("there")
            return self._store(marker)

        return await self.call(create)

    async def update_marker(self, marker: Marker) -> Marker:
        def update() -> Marker:
            self._expect(marker)
            return self._store(marker)

        return await self.call(update)

    async def delete_marker(self, marker: Marker) -> None:
        def delete() -> None:
            self._expect(marker)
            del self.stored[marker.sandbox_id]

        await self.call(delete)

    async def put_record(self, record: Record) -> Record:
        def put() -> Record:
            if record.version != (self.names.version if self.names else ""):
                raise PreconditionFailed("changed")
            self.names = replace(record, version=self.world.number(), uid=f"record-of-{self.name}")
            return self.names

        return await self.call(put)


class Seat(MemoryCluster):
    """The same cluster, as one replica uses it."""

    def __init__(self, cluster: MemoryCluster) -> None:
        object.__setattr__(self, "_cluster", cluster)
        object.__setattr__(self, "marks", {})

    def __getattr__(self, name: str) -> object:
        return getattr(self._cluster, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._cluster, name, value)
