"""What scripts/bench.py measures of the live view, from outside: by /proc, by HTTP and at the API server."""

from __future__ import annotations

import asyncio
import itertools
import json
import shlex
import sys
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import aiohttp

from scripts.bench_clients import GONE_SECONDS, ID, MARK, Client, Failed, Run, percentile, sample
from scripts.bench_processes import Held, cpu_seconds, held, listener

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

LISTS = 50
CHANGES = 1000  # as many as a p99 needs that not a single one decides
CHANGED = 50  # sandboxes, in turn: two changes of one are so far apart that the first has been seen
FILLERS = 8
SETTLE_SECONDS = 5  # what the start and the fill set off has ended by then
LOOK_SECONDS = 1.0
STOP_SECONDS = 30.0
MAX_LINE = 2**26  # the first event is all sandboxes in one line


class View(Run):
    """The steps that the options ask for, in turn; the lines are there however it ends."""

    def __init__(self, clients: list[Client], options: argparse.Namespace) -> None:
        super().__init__(clients, options)
        self.lines: list[str] = []
        self.stopping = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None

    def stop(self, why: str) -> None:
        """Begin nothing more, and wait no longer."""
        super().stop(why)
        self.stopping.set()

    def cleaners(self) -> Sequence[Client]:
        """Return direct only: it made them all, and the service may have ended."""
        return self.clients[1:]

    def report(self) -> str:
        """Return a line for each figure that there is."""
        return "".join(f"{line}\n" for line in self.lines)

    async def run(self) -> None:
        """Take all steps, until it is stopped. Raises Failed if it can't begin, or can't go on."""
        try:
            for step in (self.fill, self.start, self.list, self.idle, self.change):
                if not self.stopped:
                    await step()
        finally:
            await self.end()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until it is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.stopping.wait()

    async def fill(self) -> None:
        """Make sandboxes at the API server. One that the service does not list is the only one."""
        if not self.options.start:
            await self.clients[0].do("list")
        count = self.options.fill or CHANGED * bool(self.options.changes)
        if not count:
            return
        direct = self.clients[1]
        self.clients[0].alive = direct.alive  # from now on, a list of the service that lacks one has failed
        await direct.do("create", next(self.ids))
        if not self.options.start:
            await self.listed()
        rest = itertools.takewhile(lambda _: not self.stopped, itertools.islice(self.ids, count - 1))
        done = await sample(partial(direct.do, "create"), rest, FILLERS)
        self.failures.update(done.failures)

    async def start(self) -> None:
        """Start the service, and wait until it is ready."""
        if not self.options.start:
            return
        service = self.clients[0]
        if listener(self.options.base_url):
            raise Failed("--start: something listens at BASE_URL already")
        began = perf_counter()
        try:
            self.process = await asyncio.create_subprocess_exec(*shlex.split(self.options.start), stdout=sys.stderr)
        except OSError as error:
            raise Failed(f"--start: {error}") from error
        while not self.stopped:
            if self.process.returncode is not None:
                raise Failed(f"the service ended with {self.process.returncode} before it was ready")
            with suppress(Failed):
                await service.send("readyz", "GET", "/readyz")
                self.lines.append(f"start to ready: {perf_counter() - began:.2f} s")
                return
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        """End the service, if it was started here."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def listed(self) -> None:
        """Wait until the service lists all that was made. Raises Failed if it does not."""
        until = perf_counter() + GONE_SECONDS
        while True:
            try:
                await self.clients[0].do("list")
            except Failed:
                if self.stopped:
                    return
                if perf_counter() > until:
                    raise
                await self.pause(0.2)
            else:
                return

    async def list(self) -> None:
        """Measure lists, each of which must name all that was made."""
        await self.listed()
        service = self.clients[0]
        text, _ = await service.send("list", "GET", "/api/sandboxes")
        until_stopped = itertools.takewhile(lambda _: not self.stopped, [""] * LISTS)
        done = await sample(partial(service.do, "list"), until_stopped, 1)
        self.failures.update(done.failures)
        if done.seconds and not self.stopped:
            self.lines.append(f"list: {json.loads(text)['count']} sandboxes, {in_ms(done.seconds)}")

    async def idle(self) -> None:
        """Measure CPU time, and in any case memory."""
        seconds = self.options.idle
        pid = self.options.pid or listener(self.options.base_url)
        if not pid:
            if seconds:
                raise Failed("who listens at BASE_URL can't be seen here: --idle needs --pid")
            return
        await self.pause(min(SETTLE_SECONDS, seconds))
        began, before = perf_counter(), cpu_seconds(pid)
        own, *children = held(pid)
        while (left := began + seconds - perf_counter()) > 0 and not self.stopped:
            await self.pause(min(left, LOOK_SECONDS))
            own, *others = held(pid)
            children += others
        took, after = perf_counter() - began, cpu_seconds(pid)
        if self.stopped:
            return
        if seconds:
            service, rest = (100 * (new - old) / took for new, old in zip(after, before, strict=True))
            shares = f"the service {service:.2f} %, its children {rest:.2f} %"
            self.lines.append(f"idle: {took:.1f} s, CPU {service + rest:.2f} % of one core: {shares}")
        largest = max(children, key=lambda one: one.pss, default=Held(0, 0.0, 0.0))
        self.lines.append(f"memory of {pid}: {own}; its largest child: {largest}")

    async def change(self) -> None:
        """Change sandboxes at the API server, and measure when the service tells of it."""
        rate = self.options.changes
        if not rate:
            return
        direct = self.clients[1]
        names = sorted(direct.alive)[:CHANGED]
        await sample(partial(direct.do, "health"), [""] * len(names), len(names))  # opens the connections
        seen = Seen(self.clients[0], names)
        reading = asyncio.create_task(seen.read())
        try:
            await self.until(seen.has_begun.is_set, reading)
            began = perf_counter()

            async def work(name: str) -> float:
                """Make every so manieth change; the writes to one sandbox are one after the other."""
                for number in range(names.index(name), CHANGES, len(names)):
                    await self.pause(began + number / rate - perf_counter())
                    if self.stopped:
                        break
                    await seen.write(direct, name, str(number))
                return 0.0

            done = await sample(work, names, len(names))
            took = perf_counter() - began
            self.failures.update(done.failures)
            await self.until(lambda: not any(seen.waiting.values()), reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self.stopped or not seen.seconds:
            return
        counts = f"{len(seen.seconds)} of {CHANGES} changes, {CHANGES / took:.1f}/s"
        self.lines.append(f"seen after: {in_ms(seen.seconds)}; {counts}; answered after {in_ms(seen.answered)}")

    async def until(self, condition: Callable[[], bool], reading: asyncio.Task[None]) -> None:
        """Wait until it is true, or the run is stopped. Raises Failed if that takes too long, or reading has ended."""
        deadline = perf_counter() + GONE_SECONDS
        while not self.stopped and not condition():
            if reading.done():
                reading.result()
            if perf_counter() > deadline:
                raise Failed(f"GET /api/events has not told of a change for {GONE_SECONDS:.0f} s")
            await asyncio.sleep(0.02)


class Seen:
    """When the service's events have told of what was written; each change is a new thread ID."""

    def __init__(self, service: Client, names: Iterable[str]) -> None:
        self.service = service
        self.waiting: dict[str, dict[str, float]] = {name: {} for name in names}
        self.seconds: list[float] = []
        self.answered: list[float] = []
        self.has_begun = asyncio.Event()

    async def write(self, direct: Client, name: str, mark: str) -> None:
        """Write one change. Raises Failed."""
        self.waiting[name][mark] = perf_counter()
        for method, path, body in direct.works["change"]:
            changed = body.replace(ID, name).replace(MARK, mark)
            try:
                _, seconds = await direct.send("change", method, path.replace(ID, name), changed)
            except Failed:
                self.waiting[name].pop(mark, None)
                raise
            self.answered.append(seconds)

    async def read(self) -> None:
        """Read the events, without end. Raises Failed if they end."""
        url, without_end = f"{self.service.base}/api/events", aiohttp.ClientTimeout(total=None)
        try:
            async with self.service.session.get(url, timeout=without_end, read_bufsize=MAX_LINE) as response:
                if not response.ok:
                    raise Failed(f"GET /api/events was answered {response.status}")
                async for line in response.content:
                    self.take(line, perf_counter())
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(f"GET /api/events: {error}") from error
        raise Failed("GET /api/events has ended")

    def take(self, line: bytes, now: float) -> None:
        """Take one line of the stream. Who is told of a change knows the earlier ones of that sandbox, too."""
        name, _, text = line.partition(b":")
        if name != b"data":
            return
        self.has_begun.set()
        told = json.loads(text)
        waiting = self.waiting.get(told.get("sandbox_id"), {})
        if told.get("thread_id") in waiting:
            for mark in list(waiting):
                self.seconds.append(now - waiting.pop(mark))
                if mark == told["thread_id"]:
                    break


def in_ms(seconds: Sequence[float]) -> str:
    """Return p50 and p99."""
    return ", ".join(f"p{percent} {1000 * percentile(seconds, percent):.1f} ms" for percent in (50, 99))
