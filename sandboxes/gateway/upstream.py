"""A connection to a sandbox. Parses responses as aiohttp's client does; decompresses and follows nothing."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple

from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

from sandboxes.gateway.piping import Source

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from sandboxes.gateway.websocket import Tunnel

# Of a head, for requests and for responses. Jupyter's cookies and long Content-Security-Policies pass aiohttp's 8 KiB.
MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 256
# Of all lines together, where the head is not complete yet; for a response, with the 1xx before it.
MAX_HEAD_BYTES = 256 * 1024

# Status codes, as they are sent.
_WITHOUT_BODY = frozenset({b"204", b"304"})
_END_OF_HEAD = b"\r\n\r\n"

# Most bytes that are read from a connection which the sandbox has reset: its last response.
_LAST_BYTES = 256 * 1024


class Address(NamedTuple):
    """What is dialled. `uid`: of the Pod; the same address may be another Pod's one day."""

    sandbox_id: str
    uid: str
    host: str
    port: int


class Upstream(ResponseHandler, Source):
    """A connection to a sandbox. `used_at`: when it became idle (loop time)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, sock: socket.socket) -> None:
        super().__init__(loop)
        self.address = address
        self._counted = 0
        self.used_at = 0.0
        self.tunnel: Tunnel | None = None
        self._sock = sock
        self._awaits_head = False
        self._head_bytes = 0
        self._is_head_alone = False
        self._border = b""

    def expect_response(self, *, has_body: bool) -> None:
        """Prepare to read a response. `has_body`: false for the response to HEAD."""
        self._awaits_head, self._head_bytes = True, 0
        self.set_response_params(
            skip_payload=not has_body,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )

    def send(self, data: bytes) -> None:
        """Send the data, or nothing if the connection is lost: reading says why."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the sandbox takes more. Raises ConnectionError if the connection is lost."""
        if self._paused:
            await self._drain_helper()

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: the sandbox has not closed it, nor sent more than responses."""
        if self.should_close or not self.is_connected():
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def finish(self, patience: float) -> None:
        """Close the connection when the sandbox has taken what was sent; cut it after `patience` seconds."""
        transport = self.transport
        self.close()
        if transport is not None and transport.get_write_buffer_size():
            self._loop.call_later(patience, transport.abort)

    def take_uncounted(self) -> int:
        """Return the number of bytes from the sandbox since the last call."""
        new = self.received - self._counted
        self._counted = self.received
        return new

    def data_received(self, data: bytes) -> None:
        """Count and parse what the sandbox has sent."""
        self.received += len(data)
        while True:
            if data and self._is_over:
                self._refuse_more()
                return
            part, data = self._split(data) if self._awaits_head else (data, b"")
            body, size = self._payload, 0 if self._payload is None else self._payload.total_bytes
            super().data_received(part)
            if self._awaits_head or (body is self._payload and body is not None and body.total_bytes == size):
                self._count_head(len(part))
            elif not self._awaits_head:
                self._head_bytes = 0
            if not data:
                return

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Queue a response, but none after the one that was asked for: the queue has no bound."""
        if not self._awaits_head:
            self._refuse_more()
            return
        code = data[0].code
        self._awaits_head = code < 200 and code != 101  # noqa: PLR2004 - those that another one follows
        super().feed_data(data, size)

    def forget_body(self) -> None:
        """Take what follows for surplus: the connection is not used again then."""
        self._parser = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Read what a sandbox sent before it reset the connection: it may refuse a body that is still being sent."""
        if isinstance(exc, OSError) and self._payload_parser is None and not self._reading_paused:
            exc = self._read_last(exc)
        super().connection_lost(exc)
        if self.tunnel is not None:
            self.tunnel.lost(self)
        if self.pipe is not None:
            self.pipe.lost()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Tell also who reads the body: aiohttp leaves them waiting if it can't be parsed."""
        super().set_exception(exc, *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(exc)

    def pause_writing(self) -> None:
        """Stop reading from the caller."""
        super().pause_writing()
        if self.tunnel is not None:
            self.tunnel.steer_caller()

    def resume_writing(self) -> None:
        """Go on with reading from the caller."""
        super().resume_writing()
        if self.tunnel is not None:
            self.tunnel.steer_caller()

    @property
    def _is_over(self) -> bool:
        """Whether the response that was asked for is complete."""
        if self._awaits_head or self._upgraded or self._parser is None:
            return False
        return self._payload is None or self._payload.is_eof()

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the data up to the end of a head that has no body, and what follows: aiohttp takes both for garbage.

        Many servers send a body to HEAD, in chunks for example, and some an empty one in chunks with a 204.
        """
        if self._head_bytes == 0:
            self._is_head_alone = self._skip_payload or data[9:12] in _WITHOUT_BODY
            self._border = b""
        if not self._is_head_alone:
            return data, b""
        known = len(self._border)
        end = (self._border + data).find(_END_OF_HEAD) + len(_END_OF_HEAD) - known
        if end < len(_END_OF_HEAD) - known:  # not found
            self._border = (self._border + data)[1 - len(_END_OF_HEAD) :]
            return data, b""
        self._border = b""
        return data[:end], data[end:]

    def _count_head(self, size: int) -> None:
        """Count what is held of a head, with 1xx before it, or of trailers; end the connection if it is too much."""
        if self._upgraded:
            return
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._awaits_head = False
            self.set_exception(HttpProcessingError(message="the head is too long"))
            if self.transport is not None:
                self.transport.close()

    def _refuse_more(self) -> None:
        """Read no more from a sandbox that sends more than its response, and don't use its connection again."""
        self._should_close = True
        if not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _read_last(self, error: OSError) -> OSError | None:
        left = _LAST_BYTES
        with contextlib.suppress(OSError):  # the error that is known already
            while left > 0 and self._parser is not None:
                data = self._sock.recv(left)
                if not data:
                    return None
                left -= len(data)
                self.take(data)
        return error
