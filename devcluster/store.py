"""Stores all objects under a single resource version counter, with the log of changes for watches.

A stored object is never changed in place: each write replaces it. Knows no kind's rules.
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from devcluster.objects import Json, metadata, name_of, namespace_of
from devcluster.resources import Resource

Key = tuple[str, str]
"""Namespace (empty if cluster-scoped) and name."""

LOG_LENGTH = 2000
"""Number of changes kept for each resource; a watch from before gets 410 Expired."""


class Record:
    """A stored object and its cached JSON."""

    __slots__ = ("_members", "obj", "version")

    def __init__(self, obj: Json) -> None:
        self.obj = obj
        self.version = int(metadata(obj)["resourceVersion"])
        self._members: bytes | None = None

    def item(self) -> bytes:
        """Return the JSON of a list item: without kind and apiVersion (`list-mixed`, in the HTTP record)."""
        return b"{" + self._inner() + b"}"

    def body(self) -> bytes:
        """Return the JSON of the object."""
        head = {"kind": self.obj["kind"], "apiVersion": self.obj["apiVersion"]}
        return compact(head)[:-1] + b"," + self._inner() + b"}"

    def _inner(self) -> bytes:
        if self._members is None:
            rest = {key: value for key, value in self.obj.items() if key not in ("kind", "apiVersion")}
            self._members = compact(rest)[1:-1]
        return self._members


@dataclass(frozen=True, slots=True)
class Change:
    """One write, as a watch reports it; `previous` is None for a new object."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: Resource
    record: Record
    previous: Record | None

    @property
    def obj(self) -> Json:
        """The object after the write, or its last state if the write removed it."""
        return self.record.obj


Listener = Callable[[Change], None]


def compact(value: object) -> bytes:
    """Encode JSON as the server does."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _in_order(records: dict[Key, Record], namespace: str) -> list[Record]:
    keys = sorted(key for key in records if not namespace or key[0] == namespace)
    return [records[key] for key in keys]


class Store:
    """All objects of all resources."""

    def __init__(self) -> None:
        self._version = 0
        self._records: dict[Resource, dict[Key, Record]] = defaultdict(dict)
        self._logs: dict[Resource, deque[Change]] = defaultdict(lambda: deque(maxlen=LOG_LENGTH))
        self._forgotten: dict[Resource, int] = defaultdict(int)
        self._listeners: list[Listener] = []
        self._watches: dict[Resource, list[Listener]] = defaultdict(list)

    @property
    def version(self) -> int:
        """The resource version of the last write."""
        return self._version

    def get(self, resource: Resource, namespace: str, name: str) -> Record | None:
        """Return the object with that name, or None."""
        return self._records[resource].get((namespace, name))

    def find(self, resource: Resource, namespace: str = "") -> list[Record]:
        """Return the objects of a namespace, or of all namespaces, sorted by key."""
        return _in_order(self._records[resource], namespace)

    def find_at(self, resource: Resource, namespace: str, version: int) -> list[Record] | None:
        """Return the objects at that version; None if the log no longer reaches back to it."""
        if version < self._forgotten[resource]:
            return None
        records = dict(self._records[resource])
        for change in reversed(self._logs[resource]):
            if change.record.version <= version:
                break
            key = (namespace_of(change.obj), name_of(change.obj))
            if change.previous is None:
                records.pop(key, None)
            else:
                records[key] = change.previous
        return _in_order(records, namespace)

    def put(self, resource: Resource, obj: Json) -> Record:
        """Store the object under the next resource version. Takes ownership, and writes the version into it."""
        self._version += 1
        metadata(obj)["resourceVersion"] = str(self._version)
        record = Record(obj)
        key = (namespace_of(obj), name_of(obj))
        previous = self._records[resource].get(key)
        self._records[resource][key] = record
        self._tell(Change("MODIFIED" if previous else "ADDED", resource, record, previous))
        return record

    def remove(self, resource: Resource, obj: Json) -> Record:
        """Remove the object. Watches get `obj`, under the next resource version."""
        self._version += 1
        last = Record({**obj, "metadata": {**metadata(obj), "resourceVersion": str(self._version)}})
        previous = self._records[resource].pop((namespace_of(obj), name_of(obj)))
        self._tell(Change("DELETED", resource, last, previous))
        return last

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for every change, in order, from the event loop and never from within a write."""
        self._listeners.append(listener)

    def since(self, resource: Resource, version: int) -> Iterator[Change] | None:
        """Return the changes after that version; None if the log no longer reaches back to it."""
        if version < self._forgotten[resource]:
            return None
        return (change for change in self._logs[resource] if change.record.version > version)

    def oldest(self, resource: Resource) -> int:
        """Return the version from which on the log is complete."""
        return self._forgotten[resource]

    def forget(self, resource: Resource) -> None:
        """Compact the log, as etcd does every few minutes: watches from earlier versions get Expired."""
        self._logs[resource].clear()
        self._forgotten[resource] = self._version

    def watch(self, resource: Resource, listener: Listener) -> Callable[[], None]:
        """Call `listener` within each write of one resource. Return a function that unsubscribes."""
        watches = self._watches[resource]
        watches.append(listener)
        return lambda: watches.remove(listener)

    def _tell(self, change: Change) -> None:
        log = self._logs[change.resource]
        if len(log) == log.maxlen:
            self._forgotten[change.resource] = log[0].record.version
        log.append(change)
        for watch in tuple(self._watches[change.resource]):
            watch(change)
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.call_soon(listener, change)
