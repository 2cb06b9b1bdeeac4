"""Deadlines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sandboxes.errors import ClusterTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bound the block; raises ClusterTimeout past `seconds`, after the block has cleaned up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        detail = f"not done within the {seconds:.1f} s that this request may take"
        raise ClusterTimeout("The cluster did not answer in time", detail=detail) from error
