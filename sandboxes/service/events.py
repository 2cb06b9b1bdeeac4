"""Publishes sandbox events: created, changed, ready, expiring, deleted. Knows no HTTP.

An event is the difference between a sandbox's responses before and after a change of the live view, so a relist without
changes publishes nothing. Without subscribers the broker is idle and keeps no state.
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

# Queued events per subscriber, about 600 bytes each, shared by all subscribers. A slower subscriber is dropped instead
# of waited for; it gets the current state when it reconnects.
MAX_WAITING = 1000

# Each keeps the initial state in memory until it has read it.
MAX_READERS = 256


# A subscriber's first event is `state`; all others concern one sandbox.
EventType = Literal["state", "created", "changed", "ready", "expiring", "deleted"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


@dataclass(frozen=True)
class Event:
    """One event. `number` increases with every event, across restarts, too; `data` is JSON on one line."""

    number: int
    name: EventType
    data: bytes


class Subscriber:
    """An event queue for one client. `ended` is set after the last event, `is_dropped` if the client was too slow."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.is_dropped = False
        self._waiting: deque[Event] = deque()
        self._arrived = asyncio.Event()

    async def next(self) -> Event:
        """Wait for the next event and return it."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def put(self, event: Event) -> None:
        """Queue the event, or drop the subscriber if its queue is full."""
        if len(self._waiting) >= MAX_WAITING:
            self.is_dropped = True
            self.end()
        elif not self.ended.is_set():
            self._waiting.append(event)
            self._arrived.set()

    def end(self) -> None:
        """Discard the queue and set `ended`."""
        self._waiting.clear()
        self.ended.set()


class EventBroker:
    """The event subscribers of one cluster; needs the cluster's informer."""

    def __init__(self, cluster: Cluster, answers: Answers) -> None:
        self._cluster = cluster
        self._deadlines = cluster.deadlines
        self._answers = answers
        self._readers: set[Subscriber] = set()
        # Timeouts of `join` calls that wait for a fresh live view.
        self._joining: set[asyncio.Timeout] = set()
        self._is_closed = False
        # Starts at the time in ms: below 1000 events/s on average, a restarted process starts with a higher number.
        self._numbers = itertools.count(int(time.time() * 1000))
        # By id: the Pod's uid and the last published response. Empty without subscribers.
        self._published: dict[str, tuple[str, SandboxResponse]] = {}
        # By id: when the sandbox expires, and the timer of its `expiring` event.
        self._ends: dict[str, _End] = {}
        cluster.changed.connect(self._on_change)
        answers.rotated.connect(self._on_rotation)

    async def join(self) -> Subscriber:
        """Return a new subscriber, whose first event is `state`, the list of all sandboxes. Call `leave` when done.

        Raises LiveViewOff without a live view, ClusterUnavailable if it is not fresh in time, Busy above MAX_READERS.
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
            raise Busy("Too many clients read the events already")
        if self._is_closed:
            raise ClusterUnavailable("The provisioner is being stopped")
        # No await from here on: no event may come between the state and the subscription.
        self._answers.refresh()
        reader = Subscriber()
        if not self._readers:
            self._begin()
        sandboxes = sorted((answer for _, answer in self._published.values()), key=lambda answer: answer.sandbox_id)
        reader.put(self._event("state", SandboxList(sandboxes=sandboxes, count=len(sandboxes))))
        for sandbox_id, end in self._ends.items():
            if end.is_published:
                reader.put(self._event("expiring", self._published[sandbox_id][1]))
        self._readers.add(reader)
        return reader

    def leave(self, reader: Subscriber) -> None:
        """Remove the subscriber; the last one stops all timers."""
        self._readers.discard(reader)
        if not self._readers:
            for end in self._ends.values():
                end.timer.cancel()
            self._ends.clear()
            self._published.clear()

    def close(self) -> None:
        """End all subscribers and reject new ones."""
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
        uid_before, before = self._published.get(sandbox_id, (None, None))
        if before is not None and (answer is None or pod is None or pod["metadata"]["uid"] != uid_before):
            self._forget(sandbox_id)
            self._publish("deleted", _gone(before))
            before = None
        if pod is None or answer is None or answer == before:
            return
        self._note(pod, answer)
        if before is None:
            self._publish("created", answer)
        if answer.ready and (before is None or not before.ready):
            self._publish("ready", answer)
        elif before is not None:
            self._publish("changed", answer)

    def _on_rotation(self) -> None:
        """Publish the new URLs: another key signs those of the gateway."""
        for sandbox_id in list(self._published):
            self._on_change("Pod", kube.pod_name(sandbox_id))

    def _note(self, pod: KubeObject, answer: SandboxResponse) -> None:
        """Record the published response, and schedule the `expiring` event if the expiry changed."""
        sandbox_id = answer.sandbox_id
        self._published[sandbox_id] = (pod["metadata"]["uid"], answer)
        known = self._ends.get(sandbox_id)
        if known is not None and known.at == answer.expires_at:
            return
        if known is not None:
            known.timer.cancel()
            del self._ends[sandbox_id]
        if answer.expires_at is not None:
            try:
                left = datetime.fromisoformat(answer.expires_at).timestamp() - time.time()
            except ValueError:  # not written by this service
                return
            delay = max(left - self._deadlines.expiring, 0.0)
            timer = asyncio.get_running_loop().call_later(delay, self._on_end_near, sandbox_id)
            self._ends[sandbox_id] = _End(answer.expires_at, timer)

    def _on_end_near(self, sandbox_id: str) -> None:
        self._ends[sandbox_id].is_published = True
        self._publish("expiring", self._published[sandbox_id][1])

    def _forget(self, sandbox_id: str) -> None:
        del self._published[sandbox_id]
        end = self._ends.pop(sandbox_id, None)
        if end is not None:
            end.timer.cancel()

    def _publish(self, name: EventType, about: SandboxResponse) -> None:
        event = self._event(name, about)
        for reader in self._readers:
            reader.put(event)

    def _event(self, name: EventType, about: SandboxResponse | SandboxList) -> Event:
        return Event(next(self._numbers), name, about.as_json)


@dataclass
class _End:
    """A sandbox's `expires_at`, and the timer that publishes `expiring` once."""

    at: str
    timer: asyncio.TimerHandle
    is_published: bool = False


def _gone(before: SandboxResponse) -> SandboxResponse:
    """Return the last response with status NotFound, for a deleted or terminating sandbox."""
    fields = before.model_dump()
    return SandboxResponse(**{**fields, "status": "NotFound", "ready": False, "reason": None, "message": None})
