"""WebSockets: passes frames on as they are, and ends a connection whose message is too long.

Neither end's frames are decoded: subprotocols, extensions such as permessage-deflate, masks, fragments, pings and close
codes are between the caller and the sandbox. No message is held in memory; SANDBOX_GATEWAY_MAX_MESSAGE counts its bytes
as they are sent, so a compressed one counts compressed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from sandboxes.gateway.frames import GOING_AWAY, TOO_BIG, Frames, close_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http import WebSocketReader

    from sandboxes.gateway.client import Client
    from sandboxes.gateway.upstream import Upstream


class _Flow:
    """One direction. aiohttp's protocols call it as the parser of what they read. `is_over`: it sends nothing more."""

    __slots__ = ("_frames", "_last", "_rest", "_send", "_steer", "_too_big", "is_over")

    def __init__(
        self, limit: int, send: Callable[[bytes], None], too_big: Callable[[], None], steer: Callable[[], None]
    ) -> None:
        self._frames = Frames(limit)
        self._send = send
        self._too_big = too_big
        self._steer = steer
        # Frames that wait for their turn: meanwhile, others are served, and no more is read.
        self._rest = b""
        self.is_over = False
        self._last = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Send the data on. Returns that more may come, as aiohttp's own parser does."""
        if self.is_over:
            return False, b""
        if self._last:
            self._finish_frame(data)
            return False, b""
        if self._rest:
            self._rest += data
            return False, b""
        self._pass_on(data)
        return False, b""

    @property
    def is_behind(self) -> bool:
        """Whether frames wait for their turn."""
        return bool(self._rest)

    def _pass_on(self, data: bytes) -> None:
        passed, self._rest, is_too_big = self._frames.pass_on(data)
        if passed:
            self._send(passed)
        if is_too_big:
            self._too_big()
        if self._rest:
            asyncio.get_running_loop().call_soon(self._go_on)
            self._steer()

    def _go_on(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._pass_on(rest)
        if not self._rest:
            self._steer()

    def feed_eof(self) -> None:
        """Do nothing: the connection says that it is lost."""

    def end(self, frame: bytes) -> None:
        """Send a close frame, and nothing more. In the middle of another frame: after it, if the connection lasts."""
        if self.is_over or self._last:
            return
        if self._frames.is_between:
            self.is_over = True
            self._rest = b""
            self._send(frame)
        else:
            self._last = frame

    def _finish_frame(self, data: bytes) -> None:
        rest = data[: self._frames.left]
        self._send(rest)
        self._frames.left -= len(rest)
        if self._frames.is_between:
            self._send(self._last)
            self.is_over = True


class Tunnel:
    """An open WebSocket. `over` is set when a side has closed its connection, or the gateway has ended it.

    `limit`: SANDBOX_GATEWAY_MAX_MESSAGE; `patience`: seconds for a sender to take the close of a message too long.
    """

    def __init__(self, client: Client, upstream: Upstream, limit: int, patience: float) -> None:
        self.over = asyncio.Event()
        self._client = client
        self._upstream = upstream
        self._limit = limit
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._awaited: Client | Upstream | None = None
        self._to_sandbox = _Flow(limit, upstream.send, lambda: self._refuse_message(client), self.steer_caller)
        self._to_client = _Flow(limit, self._send_to_client, lambda: self._refuse_message(upstream), self.steer_sandbox)

    def start(self) -> None:
        """Pass on what comes from now on, and what has come already."""
        self._client.tunnel = self._upstream.tunnel = self
        self._upstream.set_parser(self._to_client, None)
        self._client.set_parser(cast("WebSocketReader", self._to_sandbox))
        self.steer_sandbox()
        self.steer_caller()
        if not self._upstream.is_connected():
            self.lost(self._upstream)

    def end(self, reason: str) -> None:
        """Close both sides now, with code 1001."""
        if not self._is_ending:
            self._is_ending = True
            self._close_flows(GOING_AWAY, reason)
        self._finish()

    def lost(self, side: Client | Upstream) -> None:
        """Note that a side's connection is lost, which ends the other."""
        if self._awaited in (None, side):
            self._finish()

    def steer_caller(self) -> None:
        """Stop reading from the caller while the sandbox takes no more, or frames of it wait for their turn."""
        _steer(self._client, self._to_sandbox, self._upstream)

    def steer_sandbox(self) -> None:
        """Stop reading from the sandbox while the caller takes no more, or frames of it wait for their turn."""
        _steer(self._upstream, self._to_client, self._client)

    def _refuse_message(self, sender: Client | Upstream) -> None:
        """Close both sides with 1009. The sender gets time to read it: it still sends, and a cut would discard it."""
        if self._is_ending:
            return
        self._is_ending = True
        self._awaited = sender
        self._close_flows(TOO_BIG, f"a message of more than {self._limit} bytes")
        # What a side still sends is discarded, but for the rest of a frame, which the other side may not take.
        self.steer_caller()
        self.steer_sandbox()
        self._timer = asyncio.get_running_loop().call_later(self._patience, self._finish)

    def _close_flows(self, code: int, reason: str) -> None:
        self._to_client.end(close_frame(code, reason, masked=False))
        self._to_sandbox.end(close_frame(code, reason, masked=True))

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.over.set()

    def _send_to_client(self, data: bytes) -> None:
        transport = self._client.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)


def _steer(source: Client | Upstream, flow: _Flow, target: Client | Upstream) -> None:
    """Read from the source, unless it is to wait. What it sends after the end of its flow is read and dropped."""
    if source.transport is None:
        return
    if not flow.is_over and (flow.is_behind or target.writing_paused):
        source.transport.pause_reading()
    else:
        source.transport.resume_reading()
