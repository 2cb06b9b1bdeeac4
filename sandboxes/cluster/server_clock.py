"""Measures a lower bound of the API server's time, from the creation times of the objects in its answers.

The service's own clock may be wrong, so its times are never compared with those of the API server. Only this process's
monotonic clock is used here, which no correction of the time changes.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES, Deadlines
from sandboxes.expiry import created_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxes.objects import KubeObject


class ServerClock:
    """A lower bound of the API server's time. `now`: a monotonic clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic, deadlines: Deadlines = DEADLINES) -> None:
        self._now = now
        self._deadlines = deadlines
        # The largest difference of a creation time to the monotonic clock at that moment, and the time it was measured.
        self._ahead: float | None = None
        self._measured_at = 0.0

    def note(self, objects: Iterable[KubeObject]) -> None:
        """Measure by objects that the API server has just answered with; those that it has just created say most.

        A measurement is replaced after `clock_measured` seconds, since the API server's clock may be set back.
        """
        now = self._now()
        if self._ahead is not None and now - self._measured_at > self._deadlines.clock_measured:
            self._ahead = None
        for obj in (one for one in objects if "creationTimestamp" in one["metadata"]):
            ahead = created_at(obj).timestamp() - now
            if self._ahead is None or ahead > self._ahead:
                self._ahead, self._measured_at = ahead, now

    def at_least(self) -> datetime | None:
        """Return a time that the API server's clock has reached by now; None if nothing was measured yet."""
        if self._ahead is None:
            return None
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._ahead + self._now())
