"""Waiting for a condition: the one way in which tests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something is true; what it asks may be a coroutine. Raises TimeoutError.

    The time is for a machine that is busy with something else. It is no promise, and nobody waits for it otherwise.
    """
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.01)
