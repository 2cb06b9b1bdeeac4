"""Runs the gateway beside an application, on sockets of its own: it starts and ends with the application."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sandboxes.api.server import bind, urls_of

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from aiohttp import web

    from sandboxes.addresses import Address
    from sandboxes.gateway.server import Gateway

logger = logging.getLogger(__name__)


class GatewayListener:
    """Binds first, so that a port that is taken stops the start early; listens once all else runs."""

    def __init__(self, gateway: Gateway, address: Address) -> None:
        self._gateway = gateway
        self._address = address
        self._sockets: list[socket.socket] = []

    async def bound(self, _app: web.Application) -> AsyncIterator[None]:
        """Bind the address; a clean-up context. Raises StartupError."""
        self._sockets = await bind(self._address)
        try:
            yield
        finally:
            for one in self._sockets:
                one.close()

    async def listening(self, _app: web.Application) -> AsyncIterator[None]:
        """Listen; a clean-up context, to be entered after those of all that the gateway needs."""
        await self._gateway.start(self._sockets)
        logger.info("the gateway listens on %s", urls_of(self._sockets))
        yield

    async def drain(self, _app: web.Application) -> None:
        """Stop listening and end the connections, the gateway's own time long; call it at shutdown."""
        await self._gateway.close()
