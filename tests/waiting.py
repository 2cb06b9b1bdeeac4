"""Waits for a condition; tests wait in no other way."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

# Characters of a condition's source in the error.
_MOST_SOURCE = 300


class NeverTrue(TimeoutError):
    """The condition that its text names was not true in time."""


async def until(condition: Callable[[], Any], seconds: float = 60, *, pause: float = 0.01) -> None:
    """Wait until `condition`, which may return a coroutine, is true.

    Raises NeverTrue after `seconds`, which allow for a busy machine; a test of a deadline measures the time itself. The
    error names the condition: by its text if it is one of the classes below, else by its source. `pause`: seconds
    between two looks.
    """
    end = asyncio.timeout(seconds)
    asked: float | None = None
    try:
        async with end:
            while True:
                asked = time.monotonic()
                answer = condition()
                if await answer if asyncio.iscoroutine(answer) else answer:
                    return
                asked = None
                await asyncio.sleep(pause)
    except TimeoutError as error:
        if not end.expired():  # the condition has raised it
            raise
        hangs = "" if asked is None else f", and has not answered for {time.monotonic() - asked:.1f} s"
        raise NeverTrue(f"not true within {seconds:g} s{hangs}: {describe(condition)}") from error


def describe(condition: Callable[[], Any]) -> str:
    """Return what a condition says of itself, or its source and where that stands."""
    if isinstance(condition, Nothing | AtLeast | All):
        return str(condition)
    code = getattr(condition, "__code__", None)
    if code is None:
        return repr(condition)
    try:
        source = " ".join(inspect.getsource(condition).split())
    except OSError:  # it has no file
        source = code.co_qualname
    return f"{source[:_MOST_SOURCE]} ({code.co_filename}:{code.co_firstlineno})"


@dataclass
class Nothing:
    """A condition: `find` returns nothing more, or a coroutine that does. Its text is what was found last.

    `what`: what `find` finds.
    """

    what: str
    find: Callable[[], Collection[object] | Awaitable[Collection[object]]]
    last: Collection[object] | None = field(default=None, init=False)

    async def __call__(self) -> bool:
        found = self.find()
        self.last = await found if inspect.isawaitable(found) else found
        return not self.last

    def __str__(self) -> str:
        return f"{self.what}: {'never answered' if self.last is None else self.last}"


@dataclass(frozen=True)
class AtLeast:
    """A condition: `count` has reached `target`."""

    what: str
    count: Callable[[], int]
    target: int

    def __call__(self) -> bool:
        return self.count() >= self.target

    def __str__(self) -> str:
        return f"{self.what}: {self.count()} of {self.target}"


@dataclass(frozen=True)
class All:
    """A condition: all of these are true. Its text has those that are not."""

    conditions: Collection[Callable[[], bool]]

    def __call__(self) -> bool:
        return all(one() for one in self.conditions)

    def __str__(self) -> str:
        return "; ".join(describe(one) for one in self.conditions if not one())
