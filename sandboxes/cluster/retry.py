"""Tries a call again, as often as its failure says that it is of use."""

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
    """Call until it succeeds, as often and with such pauses as its failure's `pauses` say.

    Whoever has a limit of time wraps this in asyncio.timeout. Raises the last failure.
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
