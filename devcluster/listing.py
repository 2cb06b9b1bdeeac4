"""Reading many: lists with selectors and pages, and watches. Knows the store and the query, no HTTP."""

import asyncio
import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

from devcluster.clock import Clock
from devcluster.errors import ApiError, bad_request, expired
from devcluster.objects import Json, new_uid
from devcluster.resources import RESOURCES, Resource
from devcluster.selectors import Matcher, both, field_matcher, label_matcher
from devcluster.store import Change, Record, Store, compact

BOOKMARK_SECONDS = 60.0
_QUEUE_LENGTH = 10_000
_SNAPSHOTS = 16
"""How many lists can be read in pages at a time; the continue tokens of older ones are Expired."""

_INITIAL_END = {"k8s.io/initial-events-end": "true"}


class _End(Enum):
    """How a watch ends that the server ends."""

    CLEAN = auto()
    CUT = auto()


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What the query of a list or a watch says."""

    matcher: Matcher | None = None
    limit: int = 0
    proceed: str = ""
    version: str = ""
    bookmarks: bool = False
    initial_events: bool = False
    seconds: float = 0

    @classmethod
    def read(cls, resource: Resource, query: dict[str, str]) -> Self:
        """Read the query. Raises BadRequest for selectors that make no sense."""
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            raise bad_request(f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: invalid syntax')
        labels = label_matcher(query.get("labelSelector", ""))
        fields = field_matcher(resource, query.get("fieldSelector", ""))
        return cls(
            both(labels, fields),
            _number(query, "limit"),
            query.get("continue", ""),
            version,
            query.get("allowWatchBookmarks") in ("true", "1"),
            query.get("sendInitialEvents") in ("true", "1"),
            _number(query, "timeoutSeconds"),
        )


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a list found, so that its later pages show the same moment as its first."""

    version: int
    records: list[Record]
    key: str = field(default_factory=new_uid)


class Listing:
    """Lists and watches of one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._snapshots: OrderedDict[str, _Snapshot] = OrderedDict()
        self._open: set[asyncio.Queue[Change | _End]] = set()

    def list(self, resource: Resource, namespace: str, options: ListOptions) -> bytes:
        """Give a list, or a page of one, as JSON (`list-mixed`, in the HTTP record)."""
        if options.proceed:
            snapshot, start = self._resume(resource, options.proceed)
        else:
            found = [record for record in self._store.find(resource, namespace) if _matches(options, record.obj)]
            snapshot, start = _Snapshot(self._store.version, found), 0
        end = start + options.limit if options.limit else len(snapshot.records)
        meta: Json = {"resourceVersion": str(snapshot.version)}
        rest = len(snapshot.records) - end
        if rest > 0:
            meta["continue"] = self._keep(snapshot, end)
            if options.matcher is None:  # with a selector a real server doesn't know
                meta["remainingItemCount"] = rest
        found = snapshot.records[start:end]
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
        items = b",".join(record.item() for record in found)
        return compact(head)[:-1] + b',"items":[' + items + b"]}"

    def _keep(self, snapshot: "_Snapshot", end: int) -> str:
        """Keep what the next page will be taken from, and give the token for it."""
        self._snapshots[snapshot.key] = snapshot
        self._snapshots.move_to_end(snapshot.key)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)
        text = compact({"v": "meta.k8s.io/v1", "rv": snapshot.version, "key": snapshot.key, "start": end})
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    def _resume(self, resource: Resource, token: str) -> "tuple[_Snapshot, int]":
        """Give what a token continues, and from where. Raises Expired."""
        try:
            read = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            key, start = str(read["key"]), int(read["start"])
        except (binascii.Error, ValueError, KeyError, TypeError):
            raise bad_request("continue key is not valid") from None
        snapshot = self._snapshots.get(key)
        if snapshot is None or snapshot.version < self._store.oldest(resource):
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter."
            )
        return snapshot, start

    async def watch(self, resource: Resource, namespace: str, options: ListOptions) -> AsyncGenerator[bytes, None]:
        """Give the events of a watch, one line each, until its time is over or the server stops (`watch-pods`)."""
        queue: asyncio.Queue[Change | _End] = asyncio.Queue()

        def take(change: Change) -> None:
            if queue.qsize() < _QUEUE_LENGTH:
                queue.put_nowait(change)
            elif queue.qsize() == _QUEUE_LENGTH:
                queue.put_nowait(_End.CLEAN)  # whoever reads this slowly is cut off, as a real server does

        try:
            first = self._first_events(resource, namespace, options)
        except ApiError as refused:
            yield _line("ERROR", compact(refused.status()))
            return
        cancel = self._store.watch(resource, take)
        self._open.add(queue)
        timer = self._clock.after(options.seconds, queue.put_nowait, _End.CLEAN) if options.seconds else None
        try:
            for event in first:
                yield event
            async for change in self._changes(queue):
                event = self._event(change, namespace, options) if change else self._bookmark(resource, options)
                if event:
                    yield event
        finally:
            cancel()
            self._open.discard(queue)
            if timer:
                timer.cancel()

    def stop(self, *, cut: bool = False) -> None:
        """End all watches, as a server that goes down does: cleanly, for kubectl to leave with 0; or cut them off."""
        for queue in self._open:
            queue.put_nowait(_End.CUT if cut else _End.CLEAN)

    def forget(self) -> None:
        """Make every resource version up to now too old to go on from: 410 Expired."""
        for resource in RESOURCES:
            self._store.forget(resource)

    async def _changes(self, queue: asyncio.Queue[Change | _End]) -> AsyncIterator[Change | None]:
        """Give the changes as they come; None each time a bookmark is due. Raises ConnectionError when cut off."""
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_SECONDS):
                    change = await queue.get()
            except TimeoutError:
                yield None
                continue
            if change is _End.CUT:
                raise ConnectionAbortedError
            if isinstance(change, _End):
                return
            yield change

    def _first_events(self, resource: Resource, namespace: str, options: ListOptions) -> Iterator[bytes]:
        """Give what comes before the live events: the state, or the changes since a version. Raises Expired."""
        if options.initial_events or options.version in ("", "0"):
            found = [record for record in self._store.find(resource, namespace) if _matches(options, record.obj)]
            events = [_line("ADDED", record.body()) for record in found]
            if options.initial_events and options.bookmarks:
                events.append(self._bookmark(resource, options, _INITIAL_END))
            return iter(events)
        changes = self._store.since(resource, int(options.version))
        if changes is None:
            raise expired(f"too old resource version: {options.version} ({self._store.oldest(resource)})")
        events = [self._event(change, namespace, options) for change in changes]
        return iter([event for event in events if event])

    def _bookmark(self, resource: Resource, options: ListOptions, notes: dict[str, str] | None = None) -> bytes:
        if not options.bookmarks:
            return b""
        meta: Json = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if notes:
            meta["annotations"] = notes
        return _line("BOOKMARK", compact({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}))

    @staticmethod
    def _event(change: Change, namespace: str, options: ListOptions) -> bytes:
        """Give the event for one change; an object that begins or ceases to match is ADDED or DELETED."""
        if namespace and change.obj["metadata"].get("namespace") != namespace:
            return b""
        before = change.previous is not None and _matches(options, change.previous.obj)
        after = change.type != "DELETED" and _matches(options, change.obj)
        if not before and not after:
            return b""
        kind = change.type if before and after else "ADDED" if after else "DELETED"
        return _line(kind, change.record.body())


def _matches(options: ListOptions, obj: Json) -> bool:
    return options.matcher is None or options.matcher(obj)


def _line(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"
