"""Keeps a running unit for each cluster of CLUSTERS_FILE, and follows the file while the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from sandboxes.clusters_file import changes, in_question, message, parse
from sandboxes.errors import StartupError
from sandboxes.kubectl.places import same_places
from sandboxes.logs import in_cluster, name_cluster
from sandboxes.ops.clusters import ClusterOverviews
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from sandboxes.cluster_unit import ClusterUnit, Preflight
    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.deadlines import Deadlines

    Prepare = Callable[[ClusterEntry], Awaitable[ClusterUnit]]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ClusterUnits:
    """The clusters of CLUSTERS_FILE. Call `load`, `check`, and then use it while `running`.

    `prepare`: builds the unit of an entry, and raises StartupError if it can't be used. `preflight`: the checks of a
    cluster before it is used. A lost cluster that can't be used has an entry but no unit.
    """

    def __init__(self, path: Path, prepare: Prepare, preflight: Preflight, deadlines: Deadlines) -> None:
        # In the order of the file that is in force.
        self.entries: tuple[ClusterEntry, ...] = ()
        self.units: dict[str, ClusterUnit] = {}
        self.overviews = ClusterOverviews((), of_file=True)
        # Sent with a unit that has been started, and with one that is about to be ended.
        self.joined: Signal[[ClusterUnit]] = Signal()
        self.leaving: Signal[[ClusterUnit]] = Signal()
        # Sent when a new version of the file is in force.
        self.changed: Signal[[]] = Signal()
        self._path = path
        self._prepare = prepare
        self._preflight = preflight
        self._deadlines = deadlines
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}
        self._content = b""
        self._seen: tuple[int, ...] | None = None
        # What is wrong with the file, as it was last logged.
        self._problem = ""
        self._retry_at = 0.0

    async def load(self) -> None:
        """Read the file and prepare all its clusters. Raises StartupError, which lists every problem."""
        try:
            self._read()
        except OSError as error:
            raise StartupError(message(self._path, [_unreadable(error)])) from error
        found = parse(self._content)
        if found.problems:
            raise StartupError(message(self._path, found.problems))
        self.entries = found.entries
        units, unusable = await self._prepared(found.entries)
        problems = _same_twice(found.entries, units)
        if problems:
            raise StartupError(message(self._path, problems))
        if not units:
            raise StartupError(message(self._path, ["Every cluster in it is lost, and none can be used."]))
        self._arrange(units, unusable)

    async def check(self) -> None:
        """Check all clusters at once. Raises StartupError, which lists every problem."""
        await self._checked(self.units.values())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all units, and follow the file, for as long as the block runs."""
        follower = None
        try:
            for unit in self.units.values():
                await self._start(unit)
            follower = asyncio.create_task(self._follow())
            yield
        finally:
            if follower is not None:
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)
            await asyncio.gather(*(self._end(unit) for unit in self.units.values()))

    async def release(self) -> None:
        """Answer all waiting callers of all clusters at once; call it at shutdown."""
        await asyncio.gather(*(_named(unit.name, unit.release()) for unit in self.units.values()))

    def entry(self, name: str) -> ClusterEntry | None:
        """Return the entry of a cluster in the file that is in force."""
        return next((entry for entry in self.entries if entry.name == name), None)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._deadlines.clusters_poll)
            try:
                await self.follow_once()
            except Exception:
                logger.exception("CLUSTERS_FILE could not be followed")

    async def follow_once(self) -> None:
        """Read the file if it may have changed, and apply a new version of it; a bad one is logged once."""
        try:
            # A version that was refused is tried again: its reason may have gone.
            is_due = bool(self._problem) and _now() >= self._retry_at
            if not self._read() and not is_due:
                return
            self._retry_at = _now() + self._deadlines.clusters_retry
            problems = await self._applied()
        except OSError as error:
            problems = [_unreadable(error)]
        problem = message(self._path, problems) if problems else ""
        if problem and problem != self._problem:
            logger.error("%s\nIts previous content stays in force.", problem)
        self._problem = problem

    async def _applied(self) -> list[str]:
        """Apply the content of the file; return its problems, with which nothing is changed."""
        found = parse(self._content)
        if found.problems:
            return list(found.problems)
        if found.entries == self.entries:
            return []
        holding = {name: await self._has_sandboxes(name) for name in in_question(self.entries, found.entries)}
        made = changes(self.entries, found.entries, holding)
        if made.problems:
            return list(made.problems)
        # One that was lost and had no unit needs one when it is not lost any more.
        anew = [entry for entry in made.weights if entry.name not in self.units]
        try:
            units, unusable = await self._prepared((*made.joins, *made.restarts, *anew))
            problems = _same_twice(found.entries, [*self.units.values(), *units])
            if problems:
                return problems
            await self._checked(units)
        except StartupError as error:
            return str(error).splitlines()
        for entry in made.weights:
            if entry.name in self.units:
                self.units[entry.name].replace_entry(entry)
        self.entries = found.entries
        await self._exchange([*made.leaves, *(entry.name for entry in made.restarts)], units, unusable)
        names = ", ".join(entry.name for entry in self.entries)
        logger.info("a new version of CLUSTERS_FILE is in force, with the clusters %s", names)
        self.changed.send()
        return []

    async def _has_sandboxes(self, name: str) -> bool | None:
        with in_cluster(name):
            return await self.units[name].has_sandboxes() if name in self.units else None

    async def _exchange(self, ended: Iterable[str], units: list[ClusterUnit], unusable: dict[str, str]) -> None:
        """Start `units`, and end those with the names `ended`; of a name that is in both, the new one starts first."""
        old = {name: unit for name in ended if (unit := self.units.get(name)) is not None}
        running = {name: self._stacks[name] for name in old}
        for unit in units:
            await self._start(unit)
        for unit in old.values():
            self.leaving.send(unit)
            del self.units[unit.name]
        self._arrange(units, unusable)
        for unit in units:
            self.joined.send(unit)
        for name, stack in running.items():
            if self._stacks[name] is stack:
                del self._stacks[name]
        await asyncio.gather(*(_close(name, stack) for name, stack in running.items()))

    async def _prepared(self, entries: Sequence[ClusterEntry]) -> tuple[list[ClusterUnit], dict[str, str]]:
        """Prepare units. Return them, and why a lost cluster can't be used, by name.

        Raises StartupError, which lists the problems of all other clusters.
        """
        units: list[ClusterUnit] = []
        unusable: dict[str, str] = {}
        problems: list[str] = []
        works = (_named(entry.name, self._prepare(entry)) for entry in entries)
        for entry, made in zip(entries, await _each(works), strict=True):
            if not isinstance(made, StartupError):
                units.append(made)
            elif entry.lost:
                with in_cluster(entry.name):
                    logger.warning("Cluster %s is lost and can't be used: %s", entry.name, made)
                unusable[entry.name] = str(made).partition("\n")[0]
            else:
                problems.append(f"Cluster {entry.name}: {made}")
        if problems:
            raise StartupError("\n".join(problems))
        return units, unusable

    async def _checked(self, units: Iterable[ClusterUnit]) -> None:
        units = list(units)
        works = (_named(unit.name, unit.check(self._preflight)) for unit in units)
        outcomes = zip(units, await _each(works), strict=True)
        problems = [f"Cluster {unit.name}: {made}" for unit, made in outcomes if isinstance(made, StartupError)]
        if problems:
            raise StartupError("\n".join(problems))

    def _arrange(self, units: Iterable[ClusterUnit], unusable: dict[str, str]) -> None:
        """Add the units, and bring all into the order of the file."""
        known = self.units | {unit.name: unit for unit in units}
        names = [entry.name for entry in self.entries]
        self.units = {name: known[name] for name in names if name in known}
        self.overviews.by_name = {name: unit.overview for name, unit in self.units.items()}
        why = self.overviews.unusable | unusable
        self.overviews.unusable = {name: why[name] for name in names if name in why and name not in self.units}

    async def _start(self, unit: ClusterUnit) -> None:
        async def start() -> contextlib.AsyncExitStack:
            name_cluster(unit.name)
            stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(unit.running())
            return stack

        # In a task of its own: all tasks of the unit have its name in their log lines, and no others have.
        self._stacks[unit.name] = await asyncio.create_task(start())

    async def _end(self, unit: ClusterUnit) -> None:
        stack = self._stacks.pop(unit.name, None)
        if stack is not None:
            await asyncio.create_task(_close(unit.name, stack))

    def _read(self) -> bool:
        """Read the file if it may have changed; return whether its content has. Raises OSError."""
        status = self._path.stat()
        signature = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        if signature == self._seen:
            return False
        content = self._path.read_bytes()
        # A file that was just written may change again without a new mtime.
        self._seen = signature if time.time() - status.st_mtime > self._deadlines.file_step else None
        has_changed = content != self._content
        self._content = content
        return has_changed


async def _close(name: str, stack: contextlib.AsyncExitStack) -> None:
    """End a unit; call it in a task of its own, whose log lines have the name."""
    name_cluster(name)
    try:
        await stack.aclose()
    except Exception:
        logger.exception("cluster %s could not be ended properly", name)


async def _named(name: str, work: Awaitable[T]) -> T:
    """Await in a task of its own, whose log lines have the cluster's name."""
    name_cluster(name)
    return await work


async def _each(works: Iterable[Awaitable[T]]) -> list[T | StartupError]:
    """Await all at once, each in a task, also if some raise StartupError; return it in place of their results."""

    async def outcome(work: Awaitable[T]) -> T | StartupError:
        try:
            return await work
        except StartupError as error:
            return error

    return list(await asyncio.gather(*map(outcome, works)))


def _same_twice(entries: Iterable[ClusterEntry], units: Iterable[ClusterUnit]) -> list[str]:
    """Return a problem for each entry that leads to the same objects as an earlier one. Lost ones do not count.

    `units`: of the entries, and others; of several of one name, the last one counts.
    """
    places = {unit.name: unit.place for unit in units}
    used = ((one.name, places[one.name]) for one in entries if one.name in places and not one.lost)
    return [
        f"Clusters {first} and {name} are one: {place.shown}. Take one of them out; if sandboxes were made through "
        "both, set `lost: true` in its entry first, until the log says that the directory is complete."
        for first, name, place in same_places(used)
    ]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _unreadable(error: OSError) -> str:
    return f"It can't be read: {error.strerror}."
