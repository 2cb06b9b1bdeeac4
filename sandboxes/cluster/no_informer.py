"""Stands where there is no informer: it knows nothing, is never fresh, and tells of nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.cluster.informer import Before
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxes.objects import KubeObject


class NoInformer:
    """What an `Informer` offers, of a cluster that is read live each time."""

    is_fresh = False
    is_certain_of_all = False
    age = float("inf")
    watching = 0

    def __init__(self) -> None:
        self.changed: Signal[[str, str]] = Signal()
        self.exchanged: Signal[[KubeObject | None, KubeObject | None]] = Signal()

    def restarts(self) -> dict[str, int]:
        """Return nothing: no watch runs."""
        return {}

    async def becomes_fresh(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    def sandbox(self, _sandbox_id: str) -> tuple[None, None]:
        """Return that nothing is known."""
        return None, None

    def is_certain(self, _sandbox_id: str) -> bool:
        """Return that it can't answer."""
        return False

    def sandboxes(self) -> Iterator[tuple[KubeObject, KubeObject]]:
        """Yield nothing."""
        yield from ()

    def objects(self) -> Iterator[KubeObject]:
        """Yield nothing."""
        yield from ()

    def note(self, _objects: Iterable[KubeObject]) -> None:
        """Forget it."""

    def note_deleted(self, _objects: Iterable[KubeObject]) -> None:
        """Forget it."""

    def doubt(self, _sandbox_id: str) -> None:
        """Forget it."""

    def before_read(self, _sandbox_id: str) -> Before:
        """Return that nothing is known."""
        return Before(None, None, None)

    def note_read(self, _sandbox_id: str, _objects: Iterable[KubeObject], _before: Before) -> None:
        """Forget it."""
