"""The server's port on loopback: opened, closed, or open and deaf. Knows sockets, and of HTTP one sentence.

While it is closed it stays ours: connecting is refused, and nobody else gets it.
"""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress

from aiohttp import web

from devcluster.allocators import bound

log = logging.getLogger(__name__)

_TLS_HANDSHAKE = b"\x16"
_NO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
"""What Go's server says to plain HTTP (`server-plain-http`)."""

_REQUEST = 65536
_END_SECONDS = 5.0


class Port:
    """Takes connections and hands them to an HTTP server."""

    deaf = False
    """Whether new connections are taken and then never heard (`server-hangs`)."""

    def __init__(self, server: web.Server, number: int, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context
        self._socket = _bound(number)
        self.number: int = self._socket.getsockname()[1]
        self._is_open = False
        self._unheard: list[socket.socket] = []
        self._greetings: set[asyncio.Task[None]] = set()
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        """Take connections."""
        if not self._is_open:
            self._socket.listen(1024)
            asyncio.get_running_loop().add_reader(self._socket, self._accept)
            self._is_open = True

    def close(self) -> None:
        """Refuse connections, and drop those that there are."""
        if self._is_open:
            self._let_go()
            self._socket = _bound(self.number)

    def stop(self) -> None:
        """Refuse connections and give the port up; those that there are live on."""
        if self._is_open:
            self._let_go(drop=False)
        else:
            self._socket.close()

    async def shutdown(self, seconds: float) -> None:
        """End the connections that there are; what is being answered gets so many seconds."""
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)
        # Closed is not enough: TLS then waits for the other side's goodbye, for longer than the loop may live.
        for connection in self._open_connections():
            with suppress(OSError):  # the other side was faster
                connection.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(_END_SECONDS):
            while self._open_connections():  # noqa: ASYNC110 - no transport says when it has closed its socket
                await asyncio.sleep(0)

    def _let_go(self, *, drop: bool = True) -> None:
        self._is_open = False
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for greeting in self._greetings:
            greeting.cancel()
        self.drop_unheard()
        if drop:
            self.drop()

    def drop(self) -> None:
        """Drop all connections in the middle of whatever they are doing, as a server that is killed does."""
        for handler in tuple(self._server.connections):
            if handler.transport is not None:
                handler.transport.abort()

    def drop_unheard(self) -> None:
        """Drop the connections that were taken while it was deaf."""
        for connection in self._unheard:
            connection.close()
        self._unheard.clear()

    def _open_connections(self) -> list[socket.socket]:
        self._connections = [one for one in self._connections if one.fileno() != -1]
        return self._connections

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:  # who knocked is gone again
            log.debug("a connection came to nothing: %s", error)
            return
        connection.setblocking(False)
        if self.deaf:
            self._unheard.append(connection)
            return
        self._connections = [*self._open_connections(), connection]
        greeting = asyncio.create_task(self._greet(connection))
        self._greetings.add(greeting)

        def greeted(task: asyncio.Task[None]) -> None:
            self._greetings.discard(task)
            # Not in the task: one that is cancelled before its first step never runs a line of it.
            if task.cancelled():
                connection.close()

        greeting.add_done_callback(greeted)

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._context is not None and await _first_byte(connection) not in (_TLS_HANDSHAKE, b""):
                connection.recv(_REQUEST)
                connection.send(_NO_TLS)
                connection.close()
                return
            await loop.connect_accepted_socket(self._server, connection, ssl=self._context)
        except OSError as error:  # a handshake that failed (`unknown-authority`), or nobody there any more
            log.debug("a connection came to nothing: %s", error)
            connection.close()


def _bound(number: int) -> socket.socket:
    taken = bound(number)
    if taken is None:
        raise OSError(f"port {number} on loopback is taken")
    return taken


async def _first_byte(connection: socket.socket) -> bytes:
    """Wait for the first byte, and leave it there; nothing when the other side has gone."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
