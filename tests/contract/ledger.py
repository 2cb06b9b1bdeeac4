"""Compares the responses to callers with the objects in the cluster, and counts lost and orphaned sandboxes.

Any number of callers may use it concurrently, also on the same ids. Only what follows from the order of the responses
is compared with the cluster: of two overlapping calls, either may have been the last.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from devcluster import Cluster
from sandboxes.service.reaper import Reaper
from tests.contract.service import URL
from tests.waiting import until

NAMESPACE = "deer-flow"

# Statuses that a caller may get while the cluster, kubectl or the service fails.
CLUSTER_ERRORS = {429, 502, 503, 504}


@dataclass
class Call:
    """A create or a delete of one id: its start, its end and its status; 0 is no response.

    One without a response, or a failed delete, may take effect at any time: its end is infinite.
    """

    verb: str
    began: float
    over: float = math.inf
    status: int = 0
    url: str = ""


@dataclass(frozen=True)
class Losses:
    """Ids: created but incomplete; rejected or deleted but present, or incomplete; with a wrong response, and which."""

    lost: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    misreported: list[str] = field(default_factory=list)


NO_LOSSES = Losses()


class Ledger:
    """Calls services of one cluster and records the responses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._calls: dict[str, list[Call]] = defaultdict(list)
        # Deletions by others, of all ids.
        self._deletes_by_others: list[Call] = []
        self._misreported: list[str] = []
        self.statuses: Counter[tuple[str, int]] = Counter()

    def answered(self, verb: str, status: int = 200) -> int:
        """Return the number of calls with this status."""
        return self.statuses[verb, status]

    def refused(self, verb: str = "create") -> int:
        """Return the number of calls with a status of CLUSTER_ERRORS."""
        return sum(count for (one, status), count in self.statuses.items() if one == verb and status in CLUSTER_ERRORS)

    async def create(self, session: aiohttp.ClientSession, sandbox_id: str, **fields: Any) -> int:
        """Create; return the status, or 0 without a response."""
        call = Call("create", time.monotonic())
        self._calls[sandbox_id].append(call)
        with suppress(aiohttp.ClientConnectorError):
            try:
                async with session.post(URL, json={"sandbox_id": sandbox_id, **fields}) as response:
                    call.url = (await response.json()).get("sandbox_url", "")
                    call.status, call.over = response.status, time.monotonic()
            except aiohttp.ClientConnectorError:
                call.over = time.monotonic()  # the service never received it
                raise
            except (aiohttp.ClientError, TimeoutError):
                pass
        self._note(sandbox_id, call)
        return call.status

    async def delete(self, session: aiohttp.ClientSession, sandbox_id: str) -> int:
        """Delete; return the status, or 0 without a response."""
        call = Call("delete", time.monotonic())
        self._calls[sandbox_id].append(call)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.delete(f"{URL}/{sandbox_id}") as response:
                call.status = response.status
        if call.status == 200:
            call.over = time.monotonic()
        self._note(sandbox_id, call)
        return call.status

    async def get(self, session: aiohttp.ClientSession, sandbox_id: str) -> int:
        """Get; return the status, or 0 without a response. Record a 404 of a present one and a 200 of a deleted one."""
        before = self._is_there(sandbox_id), self._is_gone(sandbox_id)
        status = 0
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{URL}/{sandbox_id}") as response:
                status = response.status
        after = self._is_there(sandbox_id), self._is_gone(sandbox_id)
        self.statuses["get", status] += 1
        if status not in {0, 200, 404, *CLUSTER_ERRORS}:
            self._misreported.append(f"get {sandbox_id}: {status}")
        if (status == 404 and before[0] and after[0]) or (status == 200 and before[1] and after[1]):
            self._misreported.append(f"get {sandbox_id}: {status}: {self._calls[sandbox_id]}")
        return status

    @contextmanager
    def others_delete_everything(self) -> Iterator[None]:
        """Expect that others delete everything while the block runs."""
        deletion = Call("delete", time.monotonic())
        self._deletes_by_others.append(deletion)
        yield
        deletion.over = time.monotonic()

    async def losses(self, reaper: Reaper | None) -> Losses:
        """Wait for rollbacks, run one round of the reaper if given, and return the losses.

        Objects that remain after the waits are counted; they raise no error here.
        """
        with suppress(TimeoutError):
            await until(lambda: not self._leftovers(), seconds=30)
        if reaper is not None:
            with suppress(TimeoutError):
                await until(lambda: self._all_due(reaper), seconds=30)
            await reaper.round(dry_run=False)
        with suppress(TimeoutError):
            await until(lambda: not self._leftovers() and not self._incomplete(), seconds=30)
        objects = self._objects()  # a copy of all of them, so once
        lost = sorted(
            one for one in self._calls if self._is_there(one) and not self._is_complete(one, objects.get(one, {}))
        )
        return Losses(lost, sorted(self._leftovers() | self._incomplete()), self._misreported)

    def _note(self, sandbox_id: str, call: Call) -> None:
        self.statuses[call.verb, call.status] += 1
        if call.status not in {0, 200, *CLUSTER_ERRORS}:
            self._misreported.append(f"{call.verb} {sandbox_id}: {call.status}")

    def _is_there(self, sandbox_id: str) -> bool:
        return bool(self._confirming(sandbox_id))

    def _confirming(self, sandbox_id: str) -> list[Call]:
        """Return the successful creates that began after the end of every delete."""
        calls = self._calls[sandbox_id] + self._deletes_by_others
        deleted = max((call.over for call in calls if call.verb == "delete"), default=0.0)
        return [call for call in calls if call.verb == "create" and call.status == 200 and call.began > deleted]

    def _is_gone(self, sandbox_id: str) -> bool:
        calls = self._calls[sandbox_id]
        creates = [call for call in calls if call.verb == "create"]
        if all(call.over < math.inf and call.status != 200 for call in creates):
            return True
        made = max(call.over for call in creates)
        return any(call.began > made for call in calls if call.verb == "delete" and call.status == 200)

    def _objects(self) -> dict[str, dict[str, Any]]:
        """Return the objects of each id by kind, without terminating ones."""
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for kind in ("Pod", "Service"):
            for obj in self._cluster.objects(kind, NAMESPACE):
                if "deletionTimestamp" not in obj["metadata"]:
                    found[obj["metadata"]["labels"]["sandbox-id"]][kind] = obj
        return found

    def _is_complete(self, sandbox_id: str, there: dict[str, Any]) -> bool:
        if set(there) != {"Pod", "Service"}:
            return False
        port = there["Service"]["spec"]["ports"][0]["nodePort"]
        return {urlsplit(call.url).port for call in self._confirming(sandbox_id)} == {port}

    def _incomplete(self) -> set[str]:
        return {sandbox_id for sandbox_id, there in self._objects().items() if len(there) == 1}

    def _leftovers(self) -> set[str]:
        return {sandbox_id for sandbox_id in self._objects() if self._is_gone(sandbox_id)}

    async def _all_due(self, reaper: Reaper) -> bool:
        return self._incomplete() <= {one.sandbox_id for one in await reaper.due()}


@asynccontextmanager
async def callers(
    ledger: Ledger, session: aiohttp.ClientSession, *, number: int = 20, seed: int = 1
) -> AsyncIterator[None]:
    """Run callers that create, read and delete their own sandboxes during the block; then let them finish."""
    done = asyncio.Event()

    async def call(caller: int) -> None:
        choice = random.Random(f"{seed}-{caller}")  # noqa: S311 - no secret
        for count in itertools.count():
            if done.is_set():
                return
            sandbox_id = f"s{caller}-{count}"
            await ledger.create(session, sandbox_id)
            await ledger.get(session, sandbox_id)
            if choice.random() < 0.6:
                await ledger.delete(session, sandbox_id)
                await ledger.get(session, sandbox_id)
                if choice.random() < 0.3 and not done.is_set():
                    await ledger.create(session, sandbox_id)

    async with asyncio.TaskGroup() as group:
        for caller in range(number):
            group.create_task(call(caller))
        try:
            yield
        finally:
            done.set()


def more(count: Callable[[], int], by: int) -> Callable[[], bool]:
    """Return a condition: `count` has grown by `by` since this call."""
    target = count() + by
    return lambda: count() >= target
