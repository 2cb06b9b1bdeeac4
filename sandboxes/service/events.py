"""Publishes what happens to sandboxes: created, changed, ready, expiring, deleted. Knows no HTTP.

It compares what callers would be told before and after each change of the live view, so a new list that shows what is
known tells nothing. While nobody reads, it does nothing and holds nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

from sandboxes import objects as kube
from sandboxes.errors import Busy, ClusterUnavailable, LiveViewOff
from sandboxes.models.responses import SandboxList, SandboxResponse

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.status.response import Answers

logger = logging.getLogger(__name__)

# So many events may wait for one reader, some 600 bytes each, which all readers share; one that is further behind is
# dropped, so that it is never waited for. It reads the present state when it comes again.
MAX_WAITING = 1000

# Each holds the state in memory until it has read it.
MAX_READERS = 256


# The first of all that a subscriber gets is `state`; the others are about one sandbox.
EventType = Literal["state", "created", "changed", "ready", "expiring", "deleted"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


@dataclass(frozen=True)
class Event:
    """One thing that happened. `number` grows from event to event, also over a restart; `data` is JSON in one line."""

    number: int
    name: EventType
    data: bytes


class Subscriber:
    """One who reads along. `ended` is set when nothing more will come; `is_dropped`: because it was too slow."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.is_dropped = False
        self._waiting: deque[Event] = deque()
        self._arrived = asyncio.Event()

    async def next(self) -> Event:
        """Return the next event as soon as there is one."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def put(self, event: Event) -> None:
        """Have the event read, or drop the reader if too many wait already."""
        if len(self._waiting) >= MAX_WAITING:
            self.is_dropped = True
            self.end()
        elif not self.ended.is_set():
            self._waiting.append(event)
            self._arrived.set()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._waiting.clear()
        self.ended.set()


class EventBroker:
    """Who reads along with one cluster. They need its informer."""

    def __init__(self, cluster: Cluster, answers: Answers) -> None:
        self._cluster = cluster
        self._deadlines = cluster.deadlines
        self._answers = answers
        self._readers: set[Subscriber] = set()
        # The time limits of those who wait for the view to be fresh.
        self._joining: set[asyncio.Timeout] = set()
        self._is_closed = False
        # Milliseconds: no process tells more than a thousand events a second for long, so a later one begins higher.
        self._numbers = itertools.count(int(time.time() * 1000))
        # By id: the Pod's uid and what was told of it last. Only while somebody reads.
        self._told: dict[str, tuple[str, SandboxResponse]] = {}
        # By id: what tells of the end that is near, or is to tell of it.
        self._ends: dict[str, _End] = {}
        cluster.changed.connect(self._on_change)

    async def join(self) -> Subscriber:
        """Return a new reader; its first event is `state`, the list of all that is there. `leave` must follow.

        Raises LiveViewOff, or ClusterUnavailable while the live view can't answer for the cluster.
        """
        if not self._cluster.has_informer:
            raise LiveViewOff("Events need the live view, which is switched off here (LIVE_VIEW)")
        try:
            async with asyncio.timeout(self._deadlines.subscribe) as limit:
                self._joining.add(limit)
                await self._cluster.becomes_fresh()
        except TimeoutError as error:
            raise ClusterUnavailable("The live view is not up to date just now") from error
        finally:
            self._joining.discard(limit)
        if len(self._readers) >= MAX_READERS:
            raise Busy("Too many read the events already")
        if self._is_closed:
            raise ClusterUnavailable("The provisioner is being stopped")
        # Nothing is awaited from here on: what follows the state begins where it ends.
        reader = Subscriber()
        if not self._readers:
            self._begin()
        sandboxes = sorted((answer for _, answer in self._told.values()), key=lambda answer: answer.sandbox_id)
        reader.put(self._event("state", SandboxList(sandboxes=sandboxes, count=len(sandboxes))))
        for sandbox_id, end in self._ends.items():
            if end.is_told:
                reader.put(self._event("expiring", self._told[sandbox_id][1]))
        self._readers.add(reader)
        return reader

    def leave(self, reader: Subscriber) -> None:
        """Forget the reader."""
        self._readers.discard(reader)
        if not self._readers:
            for end in self._ends.values():
                end.timer.cancel()
            self._ends.clear()
            self._told.clear()

    def close(self) -> None:
        """End all readers, and let nobody join any more."""
        self._is_closed = True
        for reader in self._readers:
            reader.end()
        for limit in self._joining:
            limit.reschedule(asyncio.get_running_loop().time())

    def _begin(self) -> None:
        for pod, service in self._cluster.known_all():
            answer = self._answers.of(pod, service)
            if answer is not None:
                self._note(pod, answer)

    def _on_change(self, kind: str, name: str) -> None:
        if not self._readers:
            return
        sandbox_id = kube.id_in_name(kind, name)
        pod, service = self._cluster.known(sandbox_id)
        answer = self._answers.of(pod, service)
        uid_before, before = self._told.get(sandbox_id, (None, None))
        if before is not None and (answer is None or pod is None or pod["metadata"]["uid"] != uid_before):
            self._forget(sandbox_id)
            self._tell("deleted", _gone(before))
            before = None
        if pod is None or answer is None or answer == before:
            return
        self._note(pod, answer)
        if before is None:
            self._tell("created", answer)
        if answer.ready and (before is None or not before.ready):
            self._tell("ready", answer)
        elif before is not None:
            self._tell("changed", answer)

    def _note(self, pod: KubeObject, answer: SandboxResponse) -> None:
        """Remember what is told of a sandbox, and have its end told in time."""
        sandbox_id = answer.sandbox_id
        self._told[sandbox_id] = (pod["metadata"]["uid"], answer)
        known = self._ends.get(sandbox_id)
        if known is not None and known.at == answer.expires_at:
            return
        if known is not None:
            known.timer.cancel()
            del self._ends[sandbox_id]
        if answer.expires_at is not None:
            try:
                left = datetime.fromisoformat(answer.expires_at).timestamp() - time.time()
            except ValueError:  # somebody else wrote the annotation
                return
            delay = max(left - self._deadlines.expiring, 0.0)
            timer = asyncio.get_running_loop().call_later(delay, self._on_end_near, sandbox_id)
            self._ends[sandbox_id] = _End(answer.expires_at, timer)

    def _on_end_near(self, sandbox_id: str) -> None:
        self._ends[sandbox_id].is_told = True
        self._tell("expiring", self._told[sandbox_id][1])

    def _forget(self, sandbox_id: str) -> None:
        del self._told[sandbox_id]
        end = self._ends.pop(sandbox_id, None)
        if end is not None:
            end.timer.cancel()

    def _tell(self, name: EventType, about: SandboxResponse) -> None:
        event = self._event(name, about)
        for reader in self._readers:
            reader.put(event)

    def _event(self, name: EventType, about: SandboxResponse | SandboxList) -> Event:
        return Event(next(self._numbers), name, about.as_json)


@dataclass
class _End:
    """When a sandbox ends, as its answer says; the timer tells of it, once."""

    at: str
    timer: asyncio.TimerHandle
    is_told: bool = False


def _gone(before: SandboxResponse) -> SandboxResponse:
    """Return what is told of a sandbox that is no more, or is being deleted: what was known, and NotFound."""
    told = before.model_dump()
    return SandboxResponse(**{**told, "status": "NotFound", "ready": False, "reason": None, "message": None})
