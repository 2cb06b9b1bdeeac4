"""Serves the gateway on its own sockets, and ends it: running requests get some seconds, WebSockets are closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.gateway.client import Client, Incoming, Options
from sandboxes.gateway.limits import ClientLimit, most_clients, raise_descriptor_limit
from sandboxes.gateway.proxy import Proxy
from sandboxes.gateway.upstream import MAX_HEADERS, MAX_LINE_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from sandboxes.gateway.interface import Ground


class Gateway:
    """The gateway as a server. `most`: connections of callers; None: by the limit on descriptors, which it raises."""

    def __init__(self, ground: Ground, *, most: int | None = None) -> None:
        if most is None:
            raise_descriptor_limit()
        self.proxy = Proxy(ground)
        self.limit = ClientLimit(most_clients() if most is None else most)
        self._ground = ground
        self._servers: list[asyncio.Server] = []
        self._manager: web.Server | None = None

    @property
    def clients(self) -> list[Client]:
        """Return the callers' connections."""
        return [one for one in self._manager.connections if isinstance(one, Client)] if self._manager else []

    @property
    def is_listening(self) -> bool:
        """Whether new connections are accepted."""
        return any(server.is_serving() for server in self._servers)

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Listen on the sockets, which are bound already."""
        loop = asyncio.get_running_loop()
        manager = web.Server(self.proxy.handle, request_factory=Incoming, handler_cancellation=True)
        self._manager = manager

        bounds: Options = {
            "keepalive_timeout": self._ground.deadlines.gateway_keepalive,
            "max_line_size": MAX_LINE_BYTES,
            "max_field_size": MAX_LINE_BYTES,
            "max_headers": MAX_HEADERS,
        }

        def client() -> Client:
            return Client(manager, self.limit, self._ground, bounds)

        self._servers = [await loop.create_server(client, sock=one) for one in sockets]

    async def close(self) -> None:
        """Stop listening, let running requests finish for some seconds, and end the others."""
        for server in self._servers:
            server.close()
        if self._manager is not None:
            self._manager.pre_shutdown()
            await self.proxy.exchanges.wait(self._ground.deadlines.gateway_finish)
            self.proxy.close()
            await self._manager.shutdown(self._ground.deadlines.gateway_close)
