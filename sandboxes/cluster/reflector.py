"""Keeps the cache of one kind current by a list, followed by watches.

How a watch may end, and what follows (kubectl.md 37):

- at its timeout: the next watch resumes from the last resourceVersion, immediately.
- no end at its timeout (hung): the same, but the next watch is short, as after a failure.
- 410 Gone, before the first event or later: the API server has discarded that version, so a new list.
- invalid line, ERROR other than 410, or decreasing versions: a warning and a new list.
- anything else, such as a killed API server: a pause, then the next watch resumes from the last resourceVersion. It is
  short: kubectl does not report when a watch was accepted, so only its normal end proves that no event was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from sandboxes.cluster.cache import WentBack
from sandboxes.errors import ProvisionerError
from sandboxes.kubectl.output import shown
from sandboxes.kubectl.process import OutputTooLarge
from sandboxes.kubectl.stderr import is_expired
from sandboxes.kubectl.withheld import repeatable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from sandboxes.cluster.cache import ResourceCache
    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.process import Child
    from sandboxes.kubectl.raw import Collection, Page
    from sandboxes.kubectl.runner import KubectlRunner

logger = logging.getLogger(__name__)

# One event is one object; etcd stores at most 1.5 MB of it, in a more compact encoding.
MAX_LINE_BYTES = 16 * 1024 * 1024

_GONE = 410


class Lists(Protocol):
    """Reads lists; implemented by Kubectl."""

    def pages(self, collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        """Yield the pages of a list."""
        ...


class _Expired(Exception):
    """The API server has discarded the version from which the watch should resume."""


class _Broken(Exception):
    """The watch returned invalid data, so earlier events may have been missed."""


class _Failed(Exception):
    """The watch ended before its timeout; its events are valid."""


class Reflector:
    """Lists and watches one collection into a cache.

    `seconds`: timeout of each watch; its normal end proves that the connection was alive. `on_progress` is called after
    every list, every event and every normal end of a watch.
    """

    def __init__(  # noqa: PLR0913 - what one collection needs
        self,
        lists: Lists,
        runner: KubectlRunner,
        collection: Collection,
        cache: ResourceCache,
        *,
        seconds: int,
        on_progress: Callable[[], None],
        deadlines: Deadlines,
    ) -> None:
        self._lists = lists
        self._runner = runner
        self._collection = collection
        self._cache = cache
        self._seconds = seconds
        self._on_progress = on_progress
        self._deadlines = deadlines
        self.is_watching = False
        # Number of failed watches.
        self.restarts = 0
        # Whether the current outage has been logged at WARNING.
        self._is_warned = False

    async def keep(self) -> None:
        """List and watch until cancelled; log and retry failures."""
        failures = 0
        is_well, well_since = True, _now()
        while True:
            try:
                if self._cache.version is None:
                    await self._list()
                if not is_well and self._cache.proven_at is not None:
                    logger.info("the live view of %s is up to date again", self._collection.resource)
                    is_well, well_since = True, _now()
                await self._watch()
                continue
            except Exception as error:
                # Retry even after a bug: it may be specific to one response, and ending here would make every read
                # live until a restart. Only `watch_settled` without a failure resets the backoff. One good list does
                # not: if every watch fails, repeated lists would overload the API server.
                if is_well and _now() - well_since > self._deadlines.watch_settled:
                    failures, self._is_warned = 0, False
                is_well = False
                failures += 1
                self._take_failure(error)
            pauses = self._deadlines.watch_pauses
            await asyncio.sleep(pauses[min(failures, len(pauses)) - 1])

    async def _list(self) -> None:
        began = _now()
        self._cache.begin_list()
        # Not in the callers' line: without the view each of their reads would be in it, too.
        async with contextlib.aclosing(self._lists.pages(self._collection, urgent=True)) as pages:
            async for page in pages:
                self._cache.add_page(page.objects)
                version = page.version
        self._cache.end_list(version, began)
        self._on_progress()

    async def _watch(self) -> None:
        """Run one watch until its timeout, or until it hangs; raise if it ends otherwise.

        The watch is short if the cache may be out of date.
        """
        assert self._cache.version is not None  # noqa: S101 - there was a list
        seconds = self._seconds if self._cache.proven_at is not None else self._deadlines.watch_catch_up
        began = _now()
        path = self._collection.watch_path(self._cache.version, seconds)
        child = await self._runner.start(("get", "--raw", path), reads=False)
        self.is_watching = True
        is_silent = False
        try:
            async with asyncio.timeout(seconds + self._deadlines.watch_silence):
                await self._read(child)
                await child.ends()
        except TimeoutError:
            is_silent = True
        finally:
            self.is_watching = False
            completed = await child.kill()
        message = repeatable(completed.stderr, self._runner.kubeconfig).strip()
        if is_silent:
            if self._cache.proven_at is None:
                raise _Failed(f"two watches in a row sent nothing; {message or 'no message'}")
            # Its events may still arrive late, so the next watch must catch up first.
            logger.debug("the watch of %s is silent: going on with another one", self._collection.resource)
            self._cache.failed()
            return
        if is_expired(completed.stderr):
            raise _Expired(message)
        if completed.returncode != 0:
            raise _Failed(message or f"exit {completed.returncode}, no message")
        if _now() - began < seconds:
            raise _Failed(f"it was ended after {_now() - began:.1f} s of {seconds}")
        if child.unfinished:  # no API server ends a watch so, but what stands before it may
            raise _Failed(f"it was ended in the middle of a line of {len(child.unfinished)} bytes")
        self._cache.ended_in_time(_now())
        self._on_progress()

    async def _read(self, child: Child) -> None:
        async with contextlib.aclosing(child.lines(MAX_LINE_BYTES)) as lines:
            async for line in lines:
                try:
                    event = self._collection.read_event(line)
                except ValueError as error:
                    raise _Broken(str(error)) from error
                if event.type == "ERROR":
                    message = shown(f"{event.obj.get('reason')}: {event.obj.get('message')}")
                    raise (_Expired if event.obj.get("code") == _GONE else _Broken)(message)
                self._cache.apply_event(event, _now())
                self._on_progress()

    def _take_failure(self, error: Exception) -> None:
        resource = self._collection.resource
        if self._cache.version is None:
            is_bug = not isinstance(error, (ProvisionerError, WentBack))
            detail = error.detail if isinstance(error, ProvisionerError) else repr(error)
            sentence = "the %s of the live view can't be listed: %s\n%s"
            logger.log(self._level(), sentence, resource, error, detail, exc_info=is_bug)
            return
        self.restarts += 1
        if isinstance(error, _Expired):
            logger.info("the watch of %s can't go on from its version, listing again (%s)", resource, error)
            self._cache.forget_version()
        elif isinstance(error, (_Failed, OSError)):
            logger.log(self._level(), "the watch of %s ended, reads are live until it is back (%s)", resource, error)
            self._cache.failed()
        else:
            is_bug = not isinstance(error, (_Broken, WentBack, OutputTooLarge))
            self._is_warned = True
            logger.warning("the watch of %s returned invalid data, listing again: %s", resource, error, exc_info=is_bug)
            self._cache.forget_version()

    def _level(self) -> int:
        """Return WARNING for the first failure of an outage, then INFO."""
        level = logging.INFO if self._is_warned else logging.WARNING
        self._is_warned = True
        return level


def _now() -> float:
    return asyncio.get_running_loop().time()
