"""One phase: the same call for many items by so many callers, timed; and what went wrong is counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from scripts.bench.client import NO_ANSWER, WrongAnswer
from scripts.bench.figures import Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Call: TypeAlias = Callable[[str], Awaitable[float]]

# So many different failures are shown.
_EXAMPLES = 5

# What a request can end with instead of the answer that it should have.
FAILED = (WrongAnswer, *NO_ANSWER)


@dataclass
class Tally:
    """How many requests there were, how many failed and in which words; why the run was stopped, if it was."""

    requests: int = 0
    errors: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None

    def note(self, where: str, error: Exception) -> None:
        """Count a request that failed."""
        self.errors += 1
        words = f"{where}: {said(error)}"
        if words in self.examples or len(self.examples) < _EXAMPLES:
            self.examples[words] = self.examples.get(words, 0) + 1


@dataclass(frozen=True)
class Outcome:
    """What came of a phase: the items that went well, and its figures; None if it was cut short, or nothing to do."""

    good: tuple[str, ...]
    sample: Sample | None


async def run_phase(call: Call, items: Sequence[str], callers: int, tally: Tally, where: str) -> Outcome:
    """Call once for each item, with `callers` at once; begins no more calls once the run is stopped."""
    latencies: list[float] = []
    good: list[str] = []
    failed = 0
    left = iter(items)

    async def work() -> None:
        nonlocal failed
        for item in left:
            if tally.stopped:
                return
            tally.requests += 1
            try:
                latencies.append(await call(item))
                good.append(item)
            except FAILED as error:
                failed += 1
                tally.note(where, error)

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(callers, len(items))):
            group.create_task(work())
    seconds = perf_counter() - started
    whole = bool(items) and len(good) + failed == len(items)
    return Outcome(tuple(good), Sample(tuple(latencies), seconds, failed) if whole else None)


def said(error: Exception) -> str:
    """Return an error's text, or its name if it has none, as a time-out has."""
    return str(error) or type(error).__name__
