"""One run from its start to its report: connections, signals, the time limit, and the clean-up whatever happens."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from scripts.bench.client import BenchError, Client, Endpoint
from scripts.bench.direct import DirectTarget
from scripts.bench.figures import results_of
from scripts.bench.memory import Memory, measure
from scripts.bench.report import Report
from scripts.bench.rounds import Bench, Plan
from scripts.bench.targets import API_KEY_HEADER, ProvisionerTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sandboxes.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """After how many seconds nothing more is begun; and the process whose memory is looked at."""

    max_seconds: int
    pid: int | None


class Run:
    """One run. It is the bench's observer: progress goes to stderr."""

    def __init__(self, base_url: str, plan: Plan, limits: Limits, settings: Settings, direct: Endpoint | None) -> None:
        self._base_url = base_url
        self._plan = plan
        self._limits = limits
        self._settings = settings
        self._direct = direct
        self._memory: list[Memory] = []
        self._give_up: Callable[[], object] | None = None
        self.interrupted = False

    async def run(self, api_key: str | None) -> Report:
        """Measure, clean up, and return the report. SIGINT and SIGTERM end it early, a second one without waiting."""
        async with AsyncExitStack() as stack:
            headers = {API_KEY_HEADER: api_key} if api_key else {}
            ours = ProvisionerTarget(await stack.enter_async_context(Client(Endpoint(self._base_url, headers))))
            direct = None
            if self._direct is not None:
                client = await stack.enter_async_context(Client(self._direct))
                direct = DirectTarget(client, self._settings)
            bench = Bench(self._plan, ours, direct, self)
            self._listen(bench)
            try:
                problem = await self._measure(bench)
            finally:
                left = await self._clean_up(bench)
        results = results_of(bench.samples)
        return Report(self._base_url, self._plan, results, bench.tally, self._memory, problem, left)

    def say(self, text: str) -> None:
        """Tell a person who waits."""
        sys.stderr.write(f"bench: {text}\n")

    async def measure_memory(self, when: str, *, settle: float = 0.0) -> None:
        """Look at the memory of the process that was named, if one was; raises BenchError if it has ended."""
        if self._limits.pid is not None:
            await asyncio.sleep(settle)
            self._memory.append(measure(self._limits.pid, when))

    def _listen(self, bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, bench)

    def _interrupt(self, bench: Bench) -> None:
        if not self.interrupted:
            self.interrupted = True
            bench.stop("interrupted")
            self.say("stopping: requests that are under way may end, then all is cleaned up; again to wait no longer")
        elif self._give_up is not None:
            self._give_up()

    async def _measure(self, bench: Bench) -> str | None:
        """Do the work; returns what went wrong with it as a whole, if anything did."""
        seconds = self._limits.max_seconds
        why = f"the {seconds} s of --max-seconds are over"
        timer = asyncio.get_running_loop().call_later(seconds, bench.stop, why)
        try:
            await self._cancellable(bench.run())
        except BenchError as error:
            return str(error)
        except asyncio.CancelledError:
            return "Requests that were under way were given up."
        finally:
            timer.cancel()
        return None

    async def _clean_up(self, bench: Bench) -> set[str]:
        """Return the sandboxes that are left behind, as far as can be told."""
        if bench.made:
            self.say(f"cleaning up {len(bench.made)} sandboxes")
        try:
            return await self._cancellable(bench.clean_up())
        except asyncio.CancelledError:
            return bench.made

    async def _cancellable(self, work: Coroutine[None, None, T]) -> T:
        task = asyncio.create_task(work)
        self._give_up = task.cancel
        return await task
