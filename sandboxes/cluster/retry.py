"""Retries calls that fail with ClusterUnavailable, with the pauses of the error."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from sandboxes.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until it succeeds, or until the `pauses` of its last error are used up; then raise that error.

    To limit the time, wrap this in asyncio.timeout.
    """
    tries = 0
    while True:
        try:
            return await call()
        except ClusterUnavailable as error:
            if tries >= len(error.pauses):
                raise
            logger.debug("trying again in %.1f s: %s", error.pauses[tries], error.public)
            await asyncio.sleep(error.pauses[tries])
            tries += 1
