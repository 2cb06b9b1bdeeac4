"""Keeps the cache of one kind current: one list, then watches that go on from where the last one ended.

Which end of a watch means what (kubectl.md 37):

- its time is over: the next watch goes on from the last version, at once.
- it has been silent for longer: the same, but by a short one, as after a failure.
- 410, before the first event or in the middle: the API server has forgotten that version, so a new list.
- a line that is no event, an ERROR that is not 410, versions that go back: a warning, and a new list.
- anything else, such as a killed API server: a pause, then the next watch goes on from the last version. It is a short
  one: kubectl does not say when a watch has been accepted, so only its end in time proves that nothing is missing.
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

# One event is one object, of which etcd stores at most 1.5 MB, in a denser form.
MAX_LINE_BYTES = 16 * 1024 * 1024

_GONE = 410


class Lists(Protocol):
    """What reads lists, see Kubectl."""

    def pages(self, collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        """Yield a list page by page."""
        ...


class _Expired(Exception):
    """The API server has forgotten the version from which the watch was to go on."""


class _Broken(Exception):
    """The watch said what makes no sense, so what it said before may not be all."""


class _Failed(Exception):
    """The watch ended before its time; what it told counts."""


class Reflector:
    """Lists and watches one collection into a cache.

    `seconds`: how long one watch lasts; its end shows that the connection was alive. `on_progress` is called after
    every list, event and end in time.
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
        # How many watches ended before their time.
        self.restarts = 0
        # Whether the log has a warning of the failures that go on.
        self._is_warned = False

    async def keep(self) -> None:
        """List and watch until cancelled; what fails is logged and tried again."""
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
                # Whatever one answer breaks, the next one may not: without a view every read would be live for ever.
                # What was well for so long has earned the first pause again. One good list has not: each watch after it
                # may fail, and lists in a row are what an API server can bear least.
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
        """Run one watch until its time is over, or until it has been silent for too long. Raises if it ends otherwise.

        A short one comes first where the cache may be out of date.
        """
        assert self._cache.version is not None  # noqa: S101 - there was a list
        seconds = self._seconds if self._cache.proven_at is not None else self._deadlines.watch_catch_up
        began = _now()
        path = self._collection.watch_path(self._cache.version, seconds)
        child = await self._runner.start(("get", "--raw", path), reads=False)
        self.is_watching = True
        try:
            async with asyncio.timeout(seconds + self._deadlines.watch_silence):
                await self._read(child)
                await child.ends()
        except TimeoutError:
            if self._cache.proven_at is None:
                raise _Failed("neither it nor the one before said a word in time") from None
            # What it did not tell for so long comes all at once, or stops again in the middle.
            logger.debug("the watch of %s is silent: going on with another one", self._collection.resource)
            self._cache.failed()
            return
        finally:
            self.is_watching = False
            completed = await child.kill()
        said = repeatable(completed.stderr, self._runner.kubeconfig).strip()
        if is_expired(completed.stderr):
            raise _Expired(said)
        if completed.returncode != 0:
            raise _Failed(said or f"exit {completed.returncode}, without a word")
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
                    said = shown(f"{event.obj.get('reason')}: {event.obj.get('message')}")
                    raise (_Expired if event.obj.get("code") == _GONE else _Broken)(said)
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
            logger.warning("the watch of %s makes no sense, listing again: %s", resource, error, exc_info=is_bug)
            self._cache.forget_version()

    def _level(self) -> int:
        """Return WARNING once for all failures of an outage, then INFO."""
        level = logging.INFO if self._is_warned else logging.WARNING
        self._is_warned = True
        return level


def _now() -> float:
    return asyncio.get_running_loop().time()
