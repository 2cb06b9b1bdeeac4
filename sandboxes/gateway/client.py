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
from aiohttp.http import HttpProcessingError, HttpRequestParser

from sandboxes.gateway.failures import Refusal, answer_of, bad_request
from sandboxes.gateway.methods import is_unknown_method, unknown_method
from sandboxes.gateway.piping import Source
from sandboxes.gateway.upstream import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from sandboxes.gateway.interface import Ground
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
        self.client.note_request(payload)
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


class Client(web.RequestHandler, Source):
    """A caller's connection. `is_known`: it has had a request with a valid token."""

    def __init__(self, manager: web.Server, limit: ClientLimit, ground: Ground, options: Options) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            logger=logger,
            access_log=None,  # type: ignore[arg-type]  # its type does not say so
            auto_decompress=False,
            **options,
        )
        self._counted = 0
        self.is_known = False
        self._is_surplus = False
        self.tunnel: Tunnel | None = None
        self.last_body: StreamReader | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._limit = limit
        self._metrics = ground.metrics
        self._deadlines = ground.deadlines
        self._options = options

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and give its first request time; cut it if there are far too many."""
        self._is_surplus = self._limit.add(self)
        super().connection_made(transport)
        self._await_head()
        if self._limit.is_far_over:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection, and end what goes on over it."""
        self._limit.remove(self)
        self._forget_head()
        super().connection_lost(exc)
        if self.tunnel is not None:
            self.tunnel.lost(self)
        if self.pipe is not None:
            self.pipe.lost()

    async def start(self) -> None:
        """Serve requests. After the last one, cut a caller that takes nothing more of its response."""
        await super().start()
        if self.transport is not None and self.transport.is_closing():
            _cut_if_stuck(self._loop, self.transport, self._deadlines.gateway_stuck, None)

    @property
    def is_surplus(self) -> bool:
        """Whether it was one more than the gateway may have, and there are still too many."""
        self._is_surplus = self._is_surplus and self._limit.is_over
        return self._is_surplus

    def note_request(self, body: StreamReader) -> None:
        """Note that a request is under way."""
        self.last_body = body
        self._limit.note_busy(self)

    def note_rest(self) -> None:
        """Note that the request is answered: from now on the connection makes room, if there are too many."""
        if self.transport is not None and not self.transport.get_write_buffer_size():
            self._limit.note_idle(self)

    def make_room(self) -> None:
        """See Idle."""
        self.force_close()

    def take_uncounted(self) -> int:
        """Return the number of bytes from the caller since the last call."""
        new = self.received - self._counted
        self._counted = self.received
        return new

    def data_received(self, data: bytes) -> None:
        """Count and parse what the caller has sent."""
        self.received += len(data)
        requests, body = self._request_count, self._body_bytes
        super().data_received(data)
        if self._request_count != requests or self._body_bytes != body or self._upgraded or self._close:
            self._head_bytes = 0
            self._forget_head()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(bad_request("The head of the request is too long"))
        elif self._head_timer is None and self._waiter is not None:
            self._await_head()

    def forget_body(self) -> None:
        """Parse what follows as another request."""
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self._options["max_line_size"],
            max_field_size=self._options["max_field_size"],
            max_headers=self._options["max_headers"],
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def pause_writing(self) -> None:
        """Stop reading from the sandbox."""
        super().pause_writing()
        if self.tunnel is not None:
            self.tunnel.steer_sandbox()

    def resume_writing(self) -> None:
        """Resume reading from the sandbox."""
        super().resume_writing()
        if self.tunnel is not None:
            self.tunnel.steer_sandbox()

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
            self._loop.call_later(self._deadlines.gateway_close, transport.abort)

    @property
    def _body_bytes(self) -> int:
        """Return the bytes of the last request's body until now. What comes and is none is a head, or trailers."""
        last = self._messages[-1][1] if self._messages else self.last_body
        return 0 if last is None else last.total_bytes

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._deadlines.gateway_head, self._give_up)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """End a connection that has sent no whole head in time; one that has sent nothing expects no answer."""
        self._head_timer = None
        if self._waiter is None:  # what comes are trailers
            return
        if self._head_bytes:
            seconds = f"{self._deadlines.gateway_head:g} s"
            self._refuse_head(Refusal("slow-head", f"The head of the request was not complete within {seconds}"))
        else:
            self.force_close()

    def _refuse_head(self, refusal: Refusal) -> None:
        """Answer a head that is no request, unless the caller would take it for the response to an earlier one."""
        if self._waiter is None or self.transport is None:
            self.abort()
            return
        self._count(refusal)
        self.transport.write(answer_of(refusal, has_body=True, keep_alive=False))
        self.force_close()

    def _count(self, refusal: Refusal) -> None:
        self._metrics.failed(refusal.kind)
        self._metrics.answered("http", refusal.status)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request, and so its token
    ) -> web.StreamResponse:
        """Answer in JSON, and close the connection."""
        if isinstance(exc, HttpProcessingError) and is_unknown_method(exc):
            refusal = unknown_method()
            self._count(refusal)
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.debug("not HTTP from %s: %s", request.remote, type(exc).__name__)
            refusal = Refusal("bad-request", "The request is not valid HTTP")
            self._count(refusal)
        else:
            refusal = Refusal("bug", "Internal error")
            self._metrics.failed(refusal.kind)  # its status was counted
            self.log_exception("", exc_info=exc)
        if isinstance(request, Incoming) and request.answered:
            self.abort()
        elif self.transport is not None:
            self.transport.write(answer_of(refusal, has_body=True, keep_alive=False))
        return Sent(refusal.status, keep_alive=False)

    def log_exception(self, *args: object, **kw: object) -> None:  # noqa: ARG002 - they quote the request
        """Log a bug without the texts of its exceptions, which may quote the request."""
        error = kw.get("exc_info")
        where = "".join(traceback.format_tb(error.__traceback__)) if isinstance(error, BaseException) else ""
        logger.error("a request failed by a bug: %s\n%s", type(error).__name__, where.rstrip())


def _cut_if_stuck(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float, before: int | None
) -> None:
    """Cut a connection whose buffer does not become smaller in so many seconds. `before`: its size at the last look."""
    left = transport.get_write_buffer_size()
    if left and left == before:
        transport.abort()
    elif left:
        loop.call_later(seconds, _cut_if_stuck, loop, transport, seconds, left)
