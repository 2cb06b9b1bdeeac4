"""The events of all clusters as one stream, with numbers of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import TYPE_CHECKING

from sandboxes.errors import ProvisionerError
from sandboxes.logs import in_cluster
from sandboxes.service.events import Event, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxes.fleet.adapter import Unit


class FleetFeed:
    """The subscribers of all clusters. When a cluster joins, leaves or comes back, streams end: callers connect again.

    `units` returns the clusters whose events are wanted. A cluster whose live view is not up to date is named in
    `incomplete` of the first event.
    """

    def __init__(self, units: Callable[[], Iterable[Unit]]) -> None:
        self._units = units
        self._numbers = itertools.count(int(time.time() * 1000))
        self._readers: dict[Subscriber, list[tuple[Unit, Subscriber]]] = {}
        self._pumps: dict[Subscriber, list[asyncio.Task[None]]] = {}

    async def join(self) -> Subscriber:
        """Return a new subscriber; see EventBroker.join. Raises its error if no cluster has a live view."""
        units = list(self._units())
        # One that hangs holds up no caller.
        asked = [unit for unit in units if unit.service.cluster.is_fresh] or units
        joined = await asyncio.gather(*map(_join, asked), return_exceptions=True)
        parts: list[tuple[Unit, Subscriber]] = []
        failures: list[BaseException] = []
        for unit, one in zip(asked, joined, strict=True):
            if isinstance(one, Subscriber):
                parts.append((unit, one))
            else:
                failures.append(one)
        bugs = [one for one in failures if not isinstance(one, ProvisionerError)]
        if bugs or (failures and not parts):
            self._leave(parts)
            raise (bugs or failures)[0]
        missing = [unit for unit in units if unit not in [part[0] for part in parts]]
        reader = Subscriber()
        sandboxes = [one for _, part in parts for one in json.loads((await part.next()).data)["sandboxes"]]
        sandboxes.sort(key=lambda one: str(one["sandbox_id"]))
        state: dict[str, object] = {"sandboxes": sandboxes, "count": len(sandboxes)}
        if missing:
            state["incomplete"] = [unit.name for unit in missing]
        data = json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode()
        reader.put(Event(next(self._numbers), "state", data))
        self._readers[reader] = parts
        self._pumps[reader] = [
            asyncio.create_task(work)
            for _, part in parts
            for work in (self._forward(part, reader), self._end_with(part, reader))
        ] + [asyncio.create_task(self._end_when_whole(unit, reader)) for unit in missing]
        return reader

    def leave(self, reader: Subscriber) -> None:
        """Remove the subscriber."""
        for task in self._pumps.pop(reader, []):
            task.cancel()
        self._leave(self._readers.pop(reader, []))

    def close(self) -> None:
        """End all subscribers."""
        for reader in self._readers:
            reader.end()

    @staticmethod
    def _leave(parts: Iterable[tuple[Unit, Subscriber]]) -> None:
        for unit, part in parts:
            unit.service.feed.leave(part)

    async def _forward(self, part: Subscriber, reader: Subscriber) -> None:
        while True:
            event = await part.next()
            reader.put(Event(next(self._numbers), event.name, event.data))

    @staticmethod
    async def _end_when_whole(unit: Unit, reader: Subscriber) -> None:
        """End the stream once the cluster, whose events it lacks, can be read again: callers connect again."""
        await unit.service.cluster.becomes_fresh()
        reader.end()

    @staticmethod
    async def _end_with(part: Subscriber, reader: Subscriber) -> None:
        await part.ended.wait()
        reader.is_dropped = reader.is_dropped or part.is_dropped
        reader.end()


async def _join(unit: Unit) -> Subscriber:
    with in_cluster(unit.name):
        return await unit.service.feed.join()
