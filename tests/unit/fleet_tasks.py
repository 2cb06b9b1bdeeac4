"""Operations that a test runs step by step: each await of a cluster is a point at which the test decides its fate."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, Literal

from sandboxes.errors import ProvisionerError

# Of a call: it succeeds, it does not arrive, its answer is lost, or it arrives after its caller has given up.
Fate = Literal["done", "refused", "lost", "late"]


@types.coroutine
def point() -> Generator[None, Fate, Fate]:
    return (yield)


class Task:
    """A running operation of a replica. `error`: what its caller got."""

    def __init__(self, what: str, coroutine: Coroutine[Any, Fate, object]) -> None:
        self.what, self._coroutine = what, coroutine
        self.is_over, self.error, self.result = False, None, None  # type: tuple[bool, ProvisionerError | None, object]
        self._resume(None)

    def _resume(self, fate: Fate | None) -> None:
        try:
            self._coroutine.send(fate)  # type: ignore[arg-type]  # None starts it
        except StopIteration as stop:
            self.is_over, self.result = True, stop.value
        except ProvisionerError as error:
            self.is_over, self.error = True, error

    def step(self, fate: Fate = "done") -> None:
        self._resume(fate)

    def run(self) -> Task:
        while not self.is_over:
            self.step()
        return self

    def kill(self) -> None:
        self.is_over = True
        self._coroutine.close()
