"""A dict with expiring entries, bounded by age and size."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
Value = TypeVar("Value")

# Entries; each is some 200 bytes. A hundred a second for ten minutes are 60,000.
MOST = 60_000


class ExpiringDict(Generic[Key, Value]):
    """Values by key, each for `seconds` after it was noted last; of more than `most`, the oldest are forgotten.

    A note costs the same however many there are. `now`: a clock that never goes back, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float], most: int = MOST) -> None:
        self._seconds = seconds
        self._now = now
        self._most = most
        # Oldest first. Not a dict: after many deletes at its front, a dict looks for its first entry among the holes.
        self._noted: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are held; of them some may be too old to be found."""
        return len(self._noted)

    def note(self, key: Key, value: Value) -> None:
        """Remember the value from now on; forget what is too old, or too many."""
        now = self._now()
        self._noted[key] = (value, now)
        self._noted.move_to_end(key)
        while self._noted and (len(self._noted) > self._most or self._is_old(next(iter(self._noted.values()))[1], now)):
            self._noted.popitem(last=False)

    def get(self, key: Key) -> Value | None:
        """Return the value, or None if none was noted within the time."""
        entry = self._noted.get(key)
        return None if entry is None or self._is_old(entry[1], self._now()) else entry[0]

    def __contains__(self, key: Key) -> bool:
        """Whether a value was noted within the time."""
        return key in self._noted and not self._is_old(self._noted[key][1], self._now())

    def _is_old(self, noted: float, now: float) -> bool:
        return now - noted >= self._seconds
