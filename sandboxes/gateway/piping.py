"""Reads connections into one buffer, and passes long bodies on from it: past the parser, never copied, never held.

A body whose length is known needs no parser. The parser copies each piece twice, and a new object for each read makes
the kernel map and clear its pages: together about half of the time of a transfer.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from aiohttp import ClientPayloadError

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from sandboxes.gateway.client import Client
    from sandboxes.gateway.upstream import Upstream

# Most bytes of a read. What is parsed is copied.
_PASSED, _PARSED = 512 * 1024, 256 * 1024


class _Buffer(threading.local):
    """Each loop's buffer: what is read is passed on, or copied, before the next read."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_PASSED))

    def write(self, transport: asyncio.Transport, data: memoryview | bytes) -> None:
        if transport.get_write_buffer_size():
            transport.write(bytes(data))
            return
        transport.write(data)
        if transport.get_write_buffer_size():  # since Python 3.12 it keeps a view of what is not sent yet
            self.view = memoryview(bytearray(_PASSED))


_buffer = _Buffer()


class Source(asyncio.BufferedProtocol):
    """A connection that reads into the buffer. `received`: bytes so far; `pipe`: gets what is read, or None."""

    pipe: Pipe | None = None
    received = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Return where to read to."""
        return _buffer.view if self.pipe is not None else _buffer.view[:_PARSED]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.take(_buffer.view[:nbytes])

    def take(self, data: memoryview | bytes) -> None:
        """Pass on what belongs to the body that is piped; parse what follows it."""
        if self.pipe is not None:
            data = self.pipe.pass_on(data)
        if data:
            self.data_received(bytes(data))

    def data_received(self, data: bytes) -> None:
        """Parse the data."""
        raise NotImplementedError

    def forget_body(self) -> None:
        """Expect no more of the body: the parser has not seen its end."""
        raise NotImplementedError


class Pipe:
    """The rest of a body of a known length, on its way from a connection to another."""

    def __init__(self, source: Client | Upstream, content: StreamReader, left: int, target: Client | Upstream) -> None:
        self._source = source
        self._content = content
        self._left = left
        self._target: Client | Upstream | None = target
        self._woken = asyncio.Event()

    def pass_on(self, data: memoryview | bytes) -> memoryview | bytes:
        """Send what belongs to the body. Returns what follows it."""
        passed, rest = data[: self._left], data[self._left :]
        self._left -= len(passed)
        self._source.received += len(passed)
        target = self._target
        if target is not None and target.transport is not None and not target.transport.is_closing():
            _buffer.write(target.transport, passed)
        if not self._left:
            self._source.pipe = None
            self._source.forget_body()
            self._content.feed_eof()
            self._woken.set()
        elif target is not None and target.writing_paused and self._source.transport is not None:
            self._source.transport.pause_reading()
            self._woken.set()
        return rest

    def lost(self) -> None:
        """Note that the source's connection is lost."""
        self._woken.set()

    async def run(self) -> None:
        """Wait until the body is sent. If this is cancelled, the rest is read and dropped.

        Raises ClientPayloadError if the source ends before, ConnectionError if the target does.
        """
        target, self._source.pipe = self._target, self
        assert target is not None  # noqa: S101 - it runs once
        try:
            while self._left:
                if self._source.transport is None:
                    raise ClientPayloadError("the body is not complete")
                await self._woken.wait()
                self._woken.clear()
                await target.drain()
                self._resume()
        finally:
            self._target = None
            self._resume()

    def _resume(self) -> None:
        if self._left and self._source.transport is not None:
            self._source.transport.resume_reading()


async def pipe(source: Client | Upstream, content: StreamReader, length: int | None, target: Client | Upstream) -> None:
    """Send the rest of a body of this length, unless it is short: then the parser's way is as fast. Raises as Pipe."""
    if length is None or length - content.total_bytes <= _PARSED:
        return
    while True:
        while data := content.read_nowait():
            target.send(data)
        if not target.writing_paused:
            break
        await target.drain()
    # The parser holds nothing now, and what has come is sent.
    if not content.is_eof():
        await Pipe(source, content, length - content.total_bytes, target).run()
