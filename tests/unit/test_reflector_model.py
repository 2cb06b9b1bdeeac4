"""The reflector against a model of the API server and its network: no event is lost, and a cut watch costs no list.

Time is virtual, so hours of watches, silence and backoff take milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxes.cluster.cache import ResourceCache
from sandboxes.cluster.reflector import Reflector
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ClusterUnavailable
from sandboxes.kubectl.process import Completed
from sandboxes.kubectl.raw import Collection, Page, sandboxes_of
from sandboxes.objects import KubeObject
from tests.record import case

SECONDS = 45
# kubectl's start, and the longest time that an event is on its way.
START, MAX_LAG = 0.1, 2.0
# Between the pages of a list; at most two, since there are three names.
PAGE = 0.5
# The longest time from a write to its event: it may be made while a list is read, or while kubectl starts.
BEHIND = 2 * START + 2 * PAGE + MAX_LAG
# No watch lasts longer, even if it hangs; a new one catches up in less.
RECOVERED = SECONDS + DEADLINES.watch_silence + 10 * DEADLINES.watch_pauses[-1]

KILLED = (1, case("raw-watch-api-killed").stderr)
BAD_LINES = {
    "no JSON": b"<html>",
    "no object": b'{"type":"ADDED"}',
    "no ERROR of 410": b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"m"}}',
}
GONE = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
# What ends or silences the open watch. None of these may cost a list.
WITHOUT_LIST = ("cut", "ended", "half a line", "silent", "refused: 429", "refused: 500", "not started")
# These must cost one list each.
WITH_LIST = ("expired", "forgotten", *BAD_LINES)


class Selector(selectors.DefaultSelector):
    """Waits in no time: instead, the clock advances."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for ever"
        self.now += max(timeout, 0.0)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock."""

    def __init__(self) -> None:
        self.clock = Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Written:
    """One change, at a version and a time; `state`: the object afterwards, None if it was deleted."""

    version: int
    at: float
    name: str
    line: bytes
    state: KubeObject | None


@dataclass
class Server:
    """The log of all changes, and what happens to lists and watches."""

    version: int = 10
    forgotten: int = 0
    lag: float = 0.0
    log: list[Written] = field(default_factory=list)
    watch: Watch | None = None
    # Outcomes of the next watches, and the number of next lists that fail.
    refusals: list[tuple[int, str] | OSError] = field(default_factory=list)
    failing_lists: int = 0
    lists: int = 0
    # Times at which the protocol demands a new list.
    reasons: int = 0

    def __post_init__(self) -> None:
        self.woken = asyncio.Event()

    def wake(self) -> None:
        self.woken.set()
        self.woken = asyncio.Event()

    def at(self, version: int) -> dict[str, KubeObject]:
        """Return the objects at a version."""
        states = {one.name: one.state for one in self.log if one.version <= version}
        return {name: state for name, state in states.items() if state is not None}

    def write(self, name: str, is_delete: bool) -> None:
        """Create, update or delete an object."""
        self.version += 1 + self.version % 2  # other kinds have changes, too
        known = self.at(self.version).get(name)
        uid = f"u{self.version}" if known is None else known["metadata"]["uid"]
        metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(self.version)}
        obj = {"kind": "Pod", "metadata": metadata}
        is_delete = is_delete and known is not None
        kind = "DELETED" if is_delete else "ADDED" if known is None else "MODIFIED"
        line = json.dumps({"type": kind, "object": obj}).encode()
        self.log.append(Written(self.version, now(), name, line, None if is_delete else obj))
        self.wake()

    def disturb(self, how: str) -> None:
        """Let something happen to the open watch, or to the next one."""
        match how:
            case "refused: 429":
                self.refusals.append((1, "Error from server (TooManyRequests): try again later\n"))
            case "refused: 500":
                self.refusals.append((1, "Error from server (InternalError): no\n"))
            case "not started":
                self.refusals.append(OSError("no kubectl"))
            case "forgotten":
                self.forgotten = self.version
            case "lists fail":
                self.failing_lists += 2
            case _ if self.watch is not None and self.watch.disturbed in (None, "silent"):
                # An end in order comes after all events, so a silent connection can only be cut.
                was_silent = self.watch.disturbed == "silent"
                self.watch.disturbed = "cut" if was_silent and how == "ended" else how
                if how == "expired":
                    self.forgotten = self.version
        self.wake()

    # The reflector's Lists and KubectlRunner

    kubeconfig = ""

    async def pages(self, _collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        assert urgent
        self.lists += 1
        await asyncio.sleep(START)
        version, objects = self.version, list(self.at(self.version).values())
        for first in range(0, max(len(objects), 1), 2):
            if self.failing_lists and (first or len(objects) <= 2):  # preferably after the first page
                self.failing_lists -= 1
                self.reasons += 1
                raise ClusterUnavailable("no")
            yield Page(objects[first : first + 2], version, "more")
            await asyncio.sleep(PAGE)

    async def start(self, args: Sequence[str], *, reads: bool) -> Watch:
        assert not reads
        query = parse_qs(urlsplit(args[2]).query)
        outcome = self.refusals.pop(0) if self.refusals else None
        if isinstance(outcome, OSError):
            raise outcome
        self.watch = Watch(self, int(query["resourceVersion"][0]), int(query["timeoutSeconds"][0]), outcome)
        return self.watch


@dataclass
class Watch:
    """One kubectl process that watches from `version`."""

    server: Server
    version: int
    seconds: int
    outcome: tuple[int, str] | None
    disturbed: str | None = None
    unfinished: bytes = b""

    async def lines(self, limit: int) -> AsyncGenerator[bytes]:
        assert limit
        await asyncio.sleep(START)
        server, end, is_reminded = self.server, now() + self.seconds, False
        if self.outcome is not None:
            return
        if self.version < server.forgotten:
            server.reasons += 1
            yield GONE
        while self.disturbed is None:
            coming = [one for one in server.log if one.version > self.version and one.at <= end]
            if coming and coming[0].at + server.lag <= now():
                self.version = coming[0].version
                yield coming[0].line
                continue
            if not coming and not is_reminded and now() >= end - 2:
                is_reminded, self.version = True, server.version
                yield json.dumps(
                    {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(self.version)}}}
                ).encode()
                continue
            if not coming and now() >= end:
                return
            wake_at = coming[0].at + server.lag if coming else end if is_reminded else end - 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wake_at - now()):
                    await server.woken.wait()
        while self.disturbed == "silent":
            await server.woken.wait()
        line = GONE if self.disturbed == "expired" else BAD_LINES.get(self.disturbed or "")
        if line is not None:
            server.reasons += 1
            yield line
        if self.disturbed == "half a line":
            self.unfinished = b'{"type":"ADDED","obj'

    async def ends(self) -> None:
        pass

    async def kill(self) -> Completed:
        if self.server.watch is self:
            self.server.watch = None
        code, stderr = self.outcome or (KILLED if self.disturbed == "cut" else (0, ""))
        return Completed(code, b"", stderr)


class World:
    """A server, a reflector, and what its cache told the listeners."""

    def __init__(self) -> None:
        self.server = Server()
        self.told: list[KubeObject] = []
        self.broken: AssertionError | None = None
        self.cache = ResourceCache(self.on_change)
        self.reflector = Reflector(
            self.server, cast(Any, self.server), sandboxes_of("ns", "Pod"), self.cache,
            seconds=SECONDS, on_progress=self.on_progress, deadlines=DEADLINES,
        )  # fmt: skip

    def on_change(self, old: KubeObject | None, new: KubeObject | None) -> None:
        self.told.append(cast("KubeObject", new or old))

    def on_progress(self) -> None:
        try:
            self.check()
        except AssertionError as error:  # the reflector would log it as a bug, and go on
            self.broken = self.broken or error

    def check(self) -> None:
        """Assert that the cache is what it claims to be."""
        version, proven_at = self.cache.version, self.cache.proven_at
        if version is None:
            assert proven_at is None
        else:
            assert self.cache.objects == self.server.at(version)
        if version is not None and proven_at is not None:
            # What was written longer ago than anything needs to arrive is known.
            assert all(one.version <= version for one in self.server.log if one.at < proven_at - BEHIND)
        assert self.server.lists <= 1 + self.server.reasons

    async def run(self, steps: Sequence[tuple[float, Callable[[Server], None]]]) -> None:
        task = asyncio.create_task(self.reflector.keep())
        try:
            for seconds, step in steps:
                await asyncio.sleep(seconds)
                step(self.server)
                self.check()
            self.server.refusals, self.server.failing_lists = [], 0
            await asyncio.sleep(RECOVERED)
            if self.broken is not None:
                raise self.broken
            self.check()
            assert not task.done()
            assert self.cache.objects == self.server.at(self.server.version)
            assert self.cache.proven_at is not None
            assert now() - self.cache.proven_at <= SECONDS + MAX_LAG + 2 * START
            assert self.server.lists == 1 + self.server.reasons
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def play(steps: Sequence[tuple[float, Callable[[Server], None]]]) -> World:
    """Run the reflector through the steps, each after some seconds."""

    async def run() -> World:
        world = World()
        await world.run(steps)
        return world

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(run())


def write(name: str, is_delete: bool) -> Callable[[Server], None]:
    return lambda server: server.write(name, is_delete)


def disturb(how: str) -> Callable[[Server], None]:
    return lambda server: server.disturb(how)


def lag(seconds: float) -> Callable[[Server], None]:
    return lambda server: setattr(server, "lag", seconds)


PAUSES = st.sampled_from([0.0, 0.0, 0.05, START, 0.3, 1.0, 3.0, SECONDS - 2, SECONDS + 1, RECOVERED])
WRITES = st.builds(write, st.sampled_from("abc"), st.booleans())
LAGS = st.builds(lag, st.sampled_from([0.0, 0.2, MAX_LAG]))


def steps(*disturbances: str) -> st.SearchStrategy[list[tuple[float, Callable[[Server], None]]]]:
    disturbing = st.builds(disturb, st.sampled_from(disturbances))
    return st.lists(st.tuples(PAUSES, st.one_of(WRITES, WRITES, LAGS, disturbing)), min_size=5, max_size=40)


@settings(max_examples=5 * settings().max_examples)
@given(steps(*WITHOUT_LIST, *WITH_LIST, "lists fail"))
def test_the_cache_is_the_servers_state_at_its_version_whatever_happens(
    story: list[tuple[float, Callable[[Server], None]]],
) -> None:
    play(story)


@settings(max_examples=2 * settings().max_examples)
@given(steps(*WITHOUT_LIST))
def test_every_change_is_told_once_and_in_order_by_one_list_if_watches_only_break(
    story: list[tuple[float, Callable[[Server], None]]],
) -> None:
    # All writes come after the list, so the listeners must hear of each.
    world = play([(1.0, lag(0.0)), *story])
    assert world.server.lists == 1
    assert [int(obj["metadata"]["resourceVersion"]) for obj in world.told] == [one.version for one in world.server.log]
