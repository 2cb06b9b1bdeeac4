"""Waits for a condition; tests wait in no other way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until `condition`, which may return a coroutine, is true.

    Raises TimeoutError after `seconds`, which allow for a busy machine; a test of a deadline measures the time itself.
    """
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.01)
