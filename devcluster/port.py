"""The server's port on loopback: open, closed, or open and deaf. Knows sockets, and of HTTP a single answer.

A closed port stays bound: connections are refused, and no other program can take it.
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
"""The answer of Go's server to plain HTTP (`server-plain-http`)."""

_REQUEST = 65536
_END_SECONDS = 5.0


class Port:
    """Accepts connections and hands them to an HTTP server."""

    deaf = False
    """Whether new connections are accepted but never read (`server-hangs`)."""

    def __init__(self, server: web.Server, number: int, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context
        self._socket = _bound(number)
        self.number: int = self._socket.getsockname()[1]
        self._is_open = False
        self._unheard: list[socket.socket] = []
        self._greetings: dict[asyncio.Task[None], socket.socket] = {}
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        """Accept connections."""
        if not self._is_open:
            self._socket.listen(1024)
            asyncio.get_running_loop().add_reader(self._socket, self._accept)
            self._is_open = True

    def close(self) -> None:
        """Refuse new connections, and drop the existing ones."""
        if self._is_open:
            self._let_go()
            self._socket = _bound(self.number)

    def stop(self) -> None:
        """Refuse new connections and release the port; existing ones stay open."""
        if self._is_open:
            self._let_go(drop=False)
        else:
            self._socket.close()

    async def shutdown(self, seconds: float) -> None:
        """Close all connections; requests in progress get `seconds` to finish."""
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)
        # Closing is not enough: TLS then waits for the peer's close_notify, perhaps longer than the loop lives.
        for connection in self._open_connections():
            with suppress(OSError):  # the peer has closed it already
                connection.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(_END_SECONDS):
            while self._open_connections():  # noqa: ASYNC110 - no transport says when it has closed its socket
                await asyncio.sleep(0)

    def _let_go(self, *, drop: bool = True) -> None:
        self._is_open = False
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        # Not cancelled: asyncio forgets the transport of a TLS handshake that is cancelled before its first step.
        for connection in self._greetings.values():
            with suppress(OSError):  # the peer has closed it already
                connection.shutdown(socket.SHUT_RDWR)
        self.drop_unheard()
        if drop:
            self.drop()

    def drop(self) -> None:
        """Abort all connections, like a killed server."""
        for handler in tuple(self._server.connections):
            if handler.transport is not None:
                handler.transport.abort()

    def drop_unheard(self) -> None:
        """Drop the connections that were accepted while the port was deaf."""
        for connection in self._unheard:
            connection.close()
        self._unheard.clear()

    def _open_connections(self) -> list[socket.socket]:
        self._connections = [one for one in self._connections if one.fileno() != -1]
        return self._connections

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:  # the client has disconnected already
            log.debug("a connection came to nothing: %s", error)
            return
        connection.setblocking(False)
        if self.deaf:
            self._unheard.append(connection)
            return
        self._connections = [*self._open_connections(), connection]
        greeting = asyncio.create_task(self._greet(connection))
        self._greetings[greeting] = connection

        def greeted(task: asyncio.Task[None]) -> None:
            self._greetings.pop(task)
            # Not in the task, which might be cancelled before it runs its first line.
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
        except OSError as error:  # the handshake failed (`unknown-authority`), or the client disconnected
            log.debug("a connection came to nothing: %s", error)
            connection.close()


def _bound(number: int) -> socket.socket:
    taken = bound(number)
    if taken is None:
        raise OSError(f"port {number} on loopback is taken")
    return taken


async def _first_byte(connection: socket.socket) -> bytes:
    """Wait for the first byte without consuming it; empty if the client disconnects."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
