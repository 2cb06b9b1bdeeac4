"""Cluster time: timers that run `speed` times as fast as the wall clock, and can all be cancelled."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class Clock:
    """Timers of the running loop, in seconds of the cluster.

    Only delays run faster. Timestamps use the wall clock, because clients compare them with their own.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._timers: set[asyncio.TimerHandle] = set()

    def now(self) -> float:
        """Return the seconds of cluster time since a fixed moment."""
        return asyncio.get_running_loop().time() * self.speed

    def after(self, seconds: float, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> "Timer":
        """Call `action` after `seconds` of cluster time."""

        def fire() -> None:
            self._timers.discard(handle)
            action(*args, **kwargs)

        handle = asyncio.get_running_loop().call_later(max(0.0, seconds) / self.speed, fire)
        self._timers.add(handle)
        return Timer(self._timers, handle)

    def stop(self) -> None:
        """Cancel all pending calls."""
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()


class Timer:
    """One pending call."""

    __slots__ = ("_handle", "_timers")

    def __init__(self, timers: set[asyncio.TimerHandle], handle: asyncio.TimerHandle) -> None:
        self._timers = timers
        self._handle = handle

    def cancel(self) -> None:
        """Cancel the call; no effect after it was made."""
        self._handle.cancel()
        self._timers.discard(self._handle)
