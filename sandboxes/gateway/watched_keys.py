"""The keys, with a signal when a read finds other ones than the read before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.access.tokens import Keys


class WatchedKeys:
    """See Keys. `changed` is sent right after the read that found other keys."""

    def __init__(self, keys: Keys) -> None:
        self.changed: Signal[[]] = Signal()
        self._keys = keys
        self._known = tuple(keys.current())

    def current(self) -> Sequence[bytes]:
        """Return the keys that are valid now."""
        keys = self._keys.current()
        if (found := tuple(keys)) != self._known:
            self._known = found
            # Not within the read: whoever reads is in the middle of a check.
            asyncio.get_running_loop().call_soon(self.changed.send)
        return keys
