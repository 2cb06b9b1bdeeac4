"""One `kubectl get --watch` for one resource, kept running: events in, restarts with back-off, no picture kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from sandboxes import objects as kube
from sandboxes.kubectl import output
from sandboxes.kubectl.withheld import repeatable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.runner import KubectlRunner
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

# The first events can be whole lists of 500 objects (kubectl.md 13), some 10 KB each.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Watch:
    """Hands on what a watch says: `on_event(type, object)`, with types ADDED, MODIFIED and DELETED.

    `on_start` is called when it may have begun to watch: what is listed from then on, and the events, are all there is.
    """

    def __init__(  # noqa: PLR0913 - what one call of kubectl needs, and whom it tells
        self,
        runner: KubectlRunner,
        resource: str,
        namespace: str,
        *,
        on_event: Callable[[str, KubeObject], None],
        on_start: Callable[[], None],
        deadlines: Deadlines,
    ) -> None:
        self._deadlines = deadlines
        self._runner = runner
        self._args = (
            "get", resource, "-n", namespace, "-l", f"{kube.APP_LABEL}={kube.APP}",
            "--watch", "--output-watch-events", "-o", "json",
        )  # fmt: skip
        self._resource = resource
        self._on_event = on_event
        self._on_start = on_start
        self._restart = asyncio.Event()
        self.is_running = False
        # Whether this run has said anything yet, by which it is known to watch; and when it spoke last, or began.
        self.has_spoken = False
        self.spoke_at = 0.0
        self.restarts = -1

    def restart(self) -> None:
        """Start it again: it does not say what it should."""
        self._restart.set()

    async def keep(self) -> None:
        """Keep it running until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            self.restarts += 1
            why = await self._run_once()
            failures = 0 if loop.time() - started > self._deadlines.watch_settled else failures + 1
            pause = self._deadlines.watch_pauses[min(failures, len(self._deadlines.watch_pauses) - 1)]
            logger.info("the watch of %s ended (%s); again in %.1f s", self._resource, why, pause)
            await asyncio.sleep(pause)

    async def _run_once(self) -> str:
        """Run one kubectl to its end and return why it ended."""
        self._restart.clear()
        self.spoke_at = asyncio.get_running_loop().time()
        try:
            child = await self._runner.start(self._args, reads=False)
        except OSError as error:
            return f"kubectl can't be started: {error}"
        reading = asyncio.create_task(self._read(child.lines(MAX_LINE_BYTES)))
        restarting = asyncio.create_task(self._restart.wait())
        settling = asyncio.create_task(self._settle())
        try:
            await asyncio.wait([reading, restarting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_running = self.has_spoken = False
            for task in (reading, restarting, settling):
                task.cancel()
            results = await asyncio.gather(reading, restarting, settling, return_exceptions=True)
            completed = await child.kill()
        problem = results[0]
        if isinstance(problem, Exception):
            # Whatever a broken event breaks: the watch goes on, or every read would be live for ever.
            return f"it said what is no event: {problem!r}"
        said = repeatable(completed.stderr, self._runner.kubeconfig).strip()
        return said or f"exit {completed.returncode}, without a word"

    async def _settle(self) -> None:
        await asyncio.sleep(self._deadlines.watch_first_list)
        if not self.is_running:
            self.is_running = True
            self._on_start()

    async def _read(self, lines: AsyncGenerator[bytes]) -> None:
        async with contextlib.aclosing(lines):
            async for line in lines:
                event: Any = output.loads(line)
                obj = event["object"]
                self.spoke_at = asyncio.get_running_loop().time()
                if not self.has_spoken:
                    self.is_running = self.has_spoken = True
                    self._on_start()
                # Paged first lists come whole (kubectl.md 13).
                for one in obj["items"] if obj["kind"].endswith("List") else [obj]:
                    self._on_event(event["type"], output.without_managed_fields(one))
