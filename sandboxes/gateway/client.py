"""A caller's connection: aiohttp's, but what is not HTTP is answered in JSON, and nothing of it gets into the log."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, TypedDict

from aiohttp import web

from sandboxes.gateway.failures import Refusal, answer_of

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from sandboxes.gateway.limits import ClientLimit
    from sandboxes.gateway.websocket import Tunnel

# SO_LINGER with a time of 0.
_RESET = struct.pack("ii", 1, 0)

logger = logging.getLogger(__name__)


class Options(TypedDict):
    """Bounds of a connection, by aiohttp's names."""

    keepalive_timeout: float
    max_line_size: int
    max_field_size: int
    max_headers: int


class Incoming(web.BaseRequest):
    """A request as it was parsed, with the caller's connection. `answered`: the status that was sent; 0: none yet."""

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        super().__init__(message, payload, protocol, writer, task, task.get_loop())
        self.parsed = message
        self.payload = payload
        assert isinstance(protocol, Client)  # noqa: S101 - the server makes no other
        self.client = protocol
        self.answered = 0

    @property
    def may_be_followed(self) -> bool:
        """Whether the connection may have another request: this one is complete, and what follows it is HTTP.

        aiohttp drops what comes after an Upgrade that it does not know.
        """
        return self.keep_alive and self.payload.is_eof() and not self.parsed.upgrade


class Sent(web.StreamResponse):
    """A response that was written already."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's
        """Do nothing: the head is sent."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body is sent."""


class Client(web.RequestHandler):
    """A caller's connection. `received`: bytes so far; `is_surplus`: it is one more than the gateway may have."""

    def __init__(self, manager: web.Server, limit: ClientLimit, linger: float, options: Options) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            logger=logger,
            access_log=None,  # type: ignore[arg-type]  # its type does not say so
            auto_decompress=False,
            **options,
        )
        self.received = 0
        self._counted = 0
        self.is_surplus = False
        self.tunnel: Tunnel | None = None
        self._limit = limit
        self._linger = linger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; cut it if there are far too many."""
        self.is_surplus = self._limit.add()
        super().connection_made(transport)
        if self._limit.is_far_over:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection, and end what goes on over it."""
        self._limit.remove()
        super().connection_lost(exc)
        if self.tunnel is not None:
            self.tunnel.lost(self)

    def take_uncounted(self) -> int:
        """Return the number of bytes from the caller since the last call."""
        new = self.received - self._counted
        self._counted = self.received
        return new

    def data_received(self, data: bytes) -> None:
        """Count and parse what the caller has sent."""
        self.received += len(data)
        super().data_received(data)

    def pause_writing(self) -> None:
        """Stop reading from the sandbox."""
        super().pause_writing()
        if self.tunnel is not None:
            self.tunnel.pause_sandbox()

    def resume_writing(self) -> None:
        """Resume reading from the sandbox."""
        super().resume_writing()
        if self.tunnel is not None:
            self.tunnel.resume_sandbox()

    def send(self, *data: bytes) -> None:
        """Send the data. Raises ConnectionResetError if the connection is lost."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(b"".join(data) if len(data) > 1 else data[0])

    async def drain(self) -> None:
        """Wait until the caller takes more. Raises ConnectionError if the connection is lost."""
        if self._paused:
            await self._drain_helper()

    def abort(self) -> None:
        """Reset the connection: no caller can take what it has for a complete response, whose end may be a close."""
        if self.transport is not None:
            one = self.transport.get_extra_info("socket")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def force_close(self) -> None:
        """Close the connection; cut it after some seconds if the caller does not take the rest."""
        transport = self.transport
        super().force_close()
        if transport is not None and transport.get_write_buffer_size():
            self._loop.call_later(self._linger, transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request, and so its token
    ) -> web.StreamResponse:
        """Answer in JSON, and close the connection."""
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.debug("not HTTP from %s: %s", request.remote, type(exc).__name__)
            refusal = Refusal(HTTPStatus(status), "bad-request", "The request is not valid HTTP")
        else:
            self.log_exception("", exc_info=exc)
            refusal = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "bug", "Internal error")
        if isinstance(request, Incoming) and request.answered:
            self.abort()
        elif self.transport is not None:
            self.transport.write(answer_of(refusal, has_body=True, keep_alive=False))
        return Sent(status, keep_alive=False)

    def log_exception(self, *args: object, **kw: object) -> None:  # noqa: ARG002 - they quote the request
        """Log a bug without the texts of its exceptions, which may quote the request."""
        error = kw.get("exc_info")
        where = "".join(traceback.format_tb(error.__traceback__)) if isinstance(error, BaseException) else ""
        logger.error("a request failed by a bug: %s\n%s", type(error).__name__, where.rstrip())
