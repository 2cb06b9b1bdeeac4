"""A null object for clusters without an informer: it caches nothing, is never fresh, and sends no signal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.cluster.informer import Before
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxes.objects import KubeObject


class NoInformer:
    """The interface of `Informer` with an empty cache, so that every read goes to the cluster."""

    is_fresh = False
    is_certain_of_all = False
    age = float("inf")
    pods_age = float("inf")
    pods_are_current = False
    watching = 0

    def __init__(self) -> None:
        self.changed: Signal[[str, str]] = Signal()
        self.exchanged: Signal[[KubeObject | None, KubeObject | None]] = Signal()

    def restarts(self) -> dict[str, int]:
        """Return an empty dict."""
        return {}

    async def becomes_fresh(self) -> None:
        """Wait forever."""
        await asyncio.Event().wait()

    def sandbox(self, _sandbox_id: str) -> tuple[None, None]:
        """Return (None, None)."""
        return None, None

    def is_certain(self, _sandbox_id: str) -> bool:
        """Return False."""
        return False

    def sandboxes(self) -> Iterator[tuple[KubeObject, KubeObject | None]]:
        """Yield nothing."""
        yield from ()

    def objects(self) -> Iterator[KubeObject]:
        """Yield nothing."""
        yield from ()

    def note(self, _objects: Iterable[KubeObject]) -> None:
        """Do nothing."""

    def note_deleted(self, _objects: Iterable[KubeObject]) -> None:
        """Do nothing."""

    def doubt(self, _sandbox_id: str) -> None:
        """Do nothing."""

    def before_read(self, _sandbox_id: str) -> Before:
        """Return an empty state."""
        return Before(None, None, None)

    def note_read(self, _sandbox_id: str, _objects: Iterable[KubeObject], _before: Before) -> None:
        """Do nothing."""
