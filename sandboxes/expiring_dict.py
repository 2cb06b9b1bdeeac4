"""A dict with expiring entries, bounded by age and size."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
Value = TypeVar("Value")

# Maximum number of entries, of about 200 bytes each: enough for 100 a second over ten minutes.
MOST = 60_000


class ExpiringDict(Generic[Key, Value]):
    """Keeps each value for `seconds` after its last `note`, and at most `most` values; drops the oldest first.

    All operations take amortized constant time. `now`: a monotonic clock, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float], most: int = MOST) -> None:
        self._seconds = seconds
        self._now = now
        self._most = most
        # Oldest first. In a plain dict, finding the first key is slow after many deletes at the front.
        self._noted: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of stored entries, which may include expired ones."""
        return len(self._noted)

    def note(self, key: Key, value: Value) -> None:
        """Store the value with a new expiry; drop expired and surplus entries."""
        now = self._now()
        self._noted[key] = (value, now)
        self._noted.move_to_end(key)
        while self._noted and (len(self._noted) > self._most or self._is_old(next(iter(self._noted.values()))[1], now)):
            self._noted.popitem(last=False)

    def get(self, key: Key) -> Value | None:
        """Return the value, or None if it is missing or expired."""
        entry = self._noted.get(key)
        return None if entry is None or self._is_old(entry[1], self._now()) else entry[0]

    def __contains__(self, key: Key) -> bool:
        """Whether the key has a value that has not expired."""
        return key in self._noted and not self._is_old(self._noted[key][1], self._now())

    def _is_old(self, noted: float, now: float) -> bool:
        return now - noted >= self._seconds
