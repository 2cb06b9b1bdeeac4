"""Measures the live view for scripts/bench.py from outside: through /proc, HTTP and the API server."""

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
CHANGES = 1000  # enough that no single change decides the p99
CHANGED = 50  # sandboxes, in turn, so that a change is seen before the next one of the same sandbox
FILLERS = 8
SETTLE_SECONDS = 5  # work that the start and the fill caused has ended by then
LOOK_SECONDS = 1.0
STOP_SECONDS = 30.0
MAX_LINE = 2**26  # the first event has all sandboxes in one line


class View(Run):
    """Runs the requested steps in turn. The lines so far are kept if the run is stopped or fails."""

    def __init__(self, clients: list[Client], options: argparse.Namespace) -> None:
        super().__init__(clients, options)
        self.lines: list[str] = []
        self.stopping = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.environ: dict[str, str] | None = None  # of the service; None: that of this process

    def stop(self, why: str) -> None:
        """Start nothing more, and end all waits."""
        super().stop(why)
        self.stopping.set()

    def cleaners(self) -> Sequence[Client]:
        """Return only the API server's client: it created all sandboxes, and the service may have ended."""
        return self.clients[1:]

    def report(self) -> str:
        """Return one line for each measurement so far."""
        return "".join(f"{line}\n" for line in self.lines)

    async def run(self) -> None:
        """Run all steps, or until stopped. Raises Failed if a step can't start or continue."""
        try:
            for step in (self.fill, self.start, self.list, self.idle, self.change):
                if not self.stopped:
                    await step()
        finally:
            await self.end()

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.stopping.wait()

    async def fill(self) -> None:
        """Create sandboxes at the API server: a single one first, which the service must list."""
        if not self.options.start:
            await self.clients[0].do("list")
        count = self.options.fill or CHANGED * bool(self.options.changes)
        if not count:
            return
        direct = self.clients[1]
        self.clients[0].alive = direct.alive  # the service's lists must include them from now on
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
            self.process = await asyncio.create_subprocess_exec(
                *shlex.split(self.options.start), stdout=sys.stderr, env=self.environ
            )
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
        """Wait until the service lists all created sandboxes. Raises Failed on timeout."""
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
        """Measure lists; each must contain all created sandboxes."""
        await self.listed()
        service = self.clients[0]
        text, _ = await service.send("list", "GET", "/api/sandboxes")
        until_stopped = itertools.takewhile(lambda _: not self.stopped, [""] * LISTS)
        done = await sample(partial(service.do, "list"), until_stopped, 1)
        self.failures.update(done.failures)
        if done.seconds and not self.stopped:
            self.lines.append(f"list: {json.loads(text)['count']} sandboxes, {in_ms(done.seconds)}")

    async def idle(self) -> None:
        """Measure memory, and with --idle also CPU time."""
        seconds = self.options.idle
        pid = self.options.pid or listener(self.options.base_url)
        if not pid:
            if seconds:
                raise Failed("the process that listens at BASE_URL is not visible here: --idle needs --pid")
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
        """Change sandboxes at the API server, and measure the time until the service's event."""
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
                """Make this sandbox's share of the changes, one after the other."""
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
        """Wait until `condition` is true, or the run is stopped. Raises Failed on timeout, or if `reading` ends."""
        deadline = perf_counter() + GONE_SECONDS
        while not self.stopped and not condition():
            if reading.done():
                reading.result()
            if perf_counter() > deadline:
                raise Failed(f"GET /api/events has not reported a change for {GONE_SECONDS:.0f} s")
            await asyncio.sleep(0.02)


class Seen:
    """Measures the time from each change, a new thread id, to the service's event."""

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
        """Process one line of the stream. An event also confirms all earlier changes of its sandbox."""
        name, _, text = line.partition(b":")
        if name != b"data":
            return
        self.has_begun.set()
        event = json.loads(text)
        waiting = self.waiting.get(event.get("sandbox_id"), {})
        if event.get("thread_id") in waiting:
            for mark in list(waiting):
                self.seconds.append(now - waiting.pop(mark))
                if mark == event["thread_id"]:
                    break


def in_ms(seconds: Sequence[float]) -> str:
    """Format p50 and p99 in ms."""
    return ", ".join(f"p{percent} {1000 * percentile(seconds, percent):.1f} ms" for percent in (50, 99))
