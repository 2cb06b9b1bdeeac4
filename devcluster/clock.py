"""The stand-in's time: delays that run faster than the wall clock when `speed` says so, and can all be called off."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class Clock:
    """Timers of the running loop, in seconds of the cluster.

    Only delays run faster. Time stamps stay the wall clock's, because those who read them compare them with theirs.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._timers: set[asyncio.TimerHandle] = set()

    def now(self) -> float:
        """Give the seconds of cluster time since some fixed moment."""
        return asyncio.get_running_loop().time() * self.speed

    def after(self, seconds: float, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> "Timer":
        """Call `action` when so many seconds of cluster time have passed."""

        def fire() -> None:
            self._timers.discard(handle)
            action(*args, **kwargs)

        handle = asyncio.get_running_loop().call_later(max(0.0, seconds) / self.speed, fire)
        self._timers.add(handle)
        return Timer(self._timers, handle)

    def stop(self) -> None:
        """Call off everything that is still to come."""
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()


class Timer:
    """One call that is still to come."""

    __slots__ = ("_handle", "_timers")

    def __init__(self, timers: set[asyncio.TimerHandle], handle: asyncio.TimerHandle) -> None:
        self._timers = timers
        self._handle = handle

    def cancel(self) -> None:
        """Call it off; without effect when it has been made."""
        self._handle.cancel()
        self._timers.discard(self._handle)
