"""Open watches: their events in order, and faults for tests. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from itertools import count, takewhile
from math import inf

from devcluster.clock import Clock, Timer
from devcluster.errors import ApiError, expired
from devcluster.objects import Json
from devcluster.queries import ListOptions
from devcluster.resources import (
    CLAIMS,
    EVENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    QUOTAS,
    RESOURCES,
    RUNTIME_CLASSES,
    SERVICES,
    STORAGE_CLASSES,
    Resource,
)
from devcluster.store import Change, Store, compact

BOOKMARK_SECONDS = 60
_BEFORE_THE_END = 2
_QUEUE_LENGTH = 10_000
_INITIAL_END = {"k8s.io/initial-events-end": "true"}
_EMPTY: dict[Resource, Json] = {
    CLAIMS: {"spec": {"resources": {}}, "status": {}},
    EVENTS: {
        "involvedObject": {},
        "source": {},
        **dict.fromkeys(("firstTimestamp", "lastTimestamp", "eventTime")),
        **dict.fromkeys(("reportingComponent", "reportingInstance"), ""),
    },
    NAMESPACES: {"spec": {}, "status": {}},
    NETWORK_POLICIES: {"spec": {"podSelector": {}}},
    PODS: {"spec": {"containers": None}, "status": {}},
    QUOTAS: {"spec": {}, "status": {}},
    RUNTIME_CLASSES: {"handler": ""},
    SERVICES: {"spec": {}, "status": {"loadBalancer": {}}},
    STORAGE_CLASSES: {"provisioner": ""},
}
"""The fields besides metadata that Go encodes for an empty object, such as a bookmark (`raw-watch`)."""


class _Watch:
    """One open watch and its queue of events."""

    def __init__(self, store: Store, resource: Resource, namespace: str, options: ListOptions) -> None:
        self._store = store
        self.resource = resource
        self._namespace = namespace
        self._options = options
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._first = 0
        self._is_cut = False
        self._may_speak = asyncio.Event()
        self._may_speak.set()
        self.reminder: Timer | None = None
        """The timer of the next bookmark."""

    def begin(self) -> None:
        """Queue the events before the live ones: the state, or the changes since a version. Raises Expired."""
        options = self._options
        if options.state_first:
            for record in self._store.find(self.resource, self._namespace):
                if options.matches(record.obj):
                    self._lines.put_nowait(_line("ADDED", record.body()))
            if options.ends_state and options.bookmarks:
                self._lines.put_nowait(self._bookmark(_INITIAL_END))
        elif options.version:
            changes = self._store.since(self.resource, options.version)
            if changes is None:
                oldest = self._store.oldest(self.resource)
                raise expired(f"too old resource version: {options.version} ({oldest})")
            for change in changes:
                self._lines.put_nowait(self._event(change))
        self._first = self._lines.qsize()

    def tell(self, change: Change) -> None:
        """Queue a change if it matches the watch."""
        if change.record.version > self._options.version:
            self._add(self._event(change))

    def bookmark(self) -> None:
        """Queue a bookmark with the current version, if bookmarks were requested."""
        if self._options.bookmarks:
            self._add(self._bookmark())

    def fail(self, error: ApiError) -> None:
        """Queue an ERROR event, and end."""
        self._lines.put_nowait(_line("ERROR", compact(error.status())))
        self.end()

    def end(self) -> None:
        """End after all queued events."""
        self._lines.put_nowait(None)

    def cut(self) -> None:
        """Cut the connection at once, dropping queued events."""
        self._is_cut = True
        self.end()
        self.release()

    def silence(self) -> None:
        """Hold back all events and the end."""
        self._may_speak.clear()

    def release(self) -> None:
        """Send the events that were held back, and continue."""
        self._may_speak.set()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the events as they occur. Raises ConnectionError when cut."""
        while True:
            line = await self._lines.get()
            await self._may_speak.wait()
            if self._is_cut:
                raise ConnectionAbortedError
            if line is None:
                return
            if line:
                yield line

    def _add(self, line: bytes) -> None:
        waiting = self._lines.qsize() - self._first
        if waiting < _QUEUE_LENGTH:
            self._lines.put_nowait(line)
        elif waiting == _QUEUE_LENGTH:
            self.end()  # disconnect a slow reader, as a real server does

    def _bookmark(self, notes: dict[str, str] | None = None) -> bytes:
        meta: Json = {"resourceVersion": str(self._store.version)}
        if notes:
            meta["annotations"] = notes
        head = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": meta}
        return _line("BOOKMARK", compact({**head, **_EMPTY.get(self.resource, {})}))

    def _event(self, change: Change) -> bytes:
        """Return the event of a change. An object that starts or stops to match is ADDED or DELETED."""
        if self._namespace and change.obj["metadata"].get("namespace") != self._namespace:
            return b""
        before = change.previous is not None and self._options.matches(change.previous.obj)
        after = change.type != "DELETED" and self._options.matches(change.obj)
        if not before and not after:
            return b""
        kind = change.type if before and after else "ADDED" if after else "DELETED"
        return _line(kind, change.record.body())


class Watches:
    """The watches of one store."""

    def __init__(self, store: Store, clock: Clock, *, watch_list: bool = True) -> None:
        self._store = store
        self._clock = clock
        self._open: set[_Watch] = set()
        self.watch_list = watch_list

    async def events(self, resource: Resource, namespace: str, options: ListOptions) -> AsyncGenerator[bytes, None]:
        """Yield the events of a watch, one line each, until its timeout or the server's stop (`watch-pods`)."""
        watch = _Watch(self._store, resource, namespace, options)
        try:
            watch.begin()
        except ApiError as refused:
            yield _line("ERROR", compact(refused.status()))
            return
        # No await between the first events and this, so that no change is lost or sent twice.
        ignore = self._store.watch(resource, watch.tell)
        self._open.add(watch)
        self._remind(watch, _bookmark_moments(options.seconds), self._clock.now())
        timer = self._clock.after(options.seconds, watch.end) if options.seconds else None
        try:
            async for line in watch.lines():
                yield line
        finally:
            self._open.discard(watch)
            ignore()
            for each in (timer, watch.reminder):
                if each:
                    each.cancel()

    def open(self, plural: str = "") -> "list[_Watch]":
        """Return the open watches of a resource, or of all."""
        return [watch for watch in self._open if plural in ("", watch.resource.plural)]

    def end(self) -> None:
        """End all watches cleanly, so that kubectl exits with 0; silent ones when they are released."""
        for watch in self.open():
            watch.end()

    def stop(self) -> None:
        """End all watches, silent or not, like a server's shutdown."""
        self.end()
        for watch in self.open():
            watch.release()

    def forget(self, plural: str = "") -> None:
        """Make the versions up to now too old to watch from, of a resource or of all: 410 Expired."""
        for resource in RESOURCES:
            if plural in ("", resource.plural):
                self._store.forget(resource)

    def _remind(self, watch: _Watch, moments: Iterator[float], begun: float) -> None:
        """Send a bookmark at each of the times, in seconds since the watch's start."""

        def remind() -> None:
            watch.bookmark()
            self._remind(watch, moments, begun)

        moment = next(moments, None)
        watch.reminder = self._clock.after(begun + moment - self._clock.now(), remind) if moment else None


def _bookmark_moments(seconds: float) -> Iterator[float]:
    """Yield the times of bookmarks in a watch of that duration: every minute, and shortly before its end.

    API servers do this, but no client may rely on it.
    """
    last = seconds - _BEFORE_THE_END if seconds else inf
    yield from takewhile(lambda moment: moment < last, count(BOOKMARK_SECONDS, BOOKMARK_SECONDS))
    if 0 < last < inf:
        yield last


def _line(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"
