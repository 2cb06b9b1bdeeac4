"""Follows the frames of one direction of a WebSocket, without their payloads; makes close frames. Pure (RFC 6455)."""

from __future__ import annotations

import secrets
import struct

_SHORT, _LONG, _VERY_LONG = 125, 126, 127
_CONTROL, _CLOSE = 0x8, 0x8
_MOST_REASON = 123

# Of one call: a quarter of a megabyte of empty frames takes 90 ms, in which no other connection is served.
MOST_FRAMES = 1024

TOO_BIG = 1009
GOING_AWAY = 1001


class Frames:
    """Where a direction stands: `left` bytes of a frame's payload are to come, `held` has an incomplete header.

    `limit`: most bytes of a message, as sent: a compressed one counts compressed.
    """

    __slots__ = ("held", "left", "limit", "message")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = 0
        self.held = b""
        self.message = 0

    @property
    def is_between(self) -> bool:
        """Whether a frame may be put in here: no other one has begun."""
        return self.left == 0

    def pass_on(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Return what may be sent on of what was held and of `data`, the rest, and whether a message became too long.

        Then, nothing of the frame with which it did is sent on. An incomplete header is held until it is complete. The
        rest is what follows MOST_FRAMES frames: pass it on by another call.
        """
        size = len(data)
        if size <= self.left:
            self.left -= size
            return data, b"", False
        if self.held:
            data, self.held = self.held + data, b""
            size = len(data)
        at, frames = self.left, 0
        while at < size:
            if frames == MOST_FRAMES:
                self.left = 0
                return data[:at], data[at:], False
            frames += 1
            begin = at
            header = _header(data, at)
            if header is None:
                self.left, self.held = 0, data[begin:]
                return data[:begin], b"", False
            first, length, at = header
            if (first & 0x0F) < _CONTROL:
                self.message += length
                if self.message > self.limit:
                    self.left = 0
                    return data[:begin], b"", True
                if first & 0x80:
                    self.message = 0
            at += length
        self.left = at - size
        return data, b"", False


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """Return a close frame; those to a server are masked."""
    payload = struct.pack("!H", code) + reason.encode()[:_MOST_REASON]
    if not masked:
        return bytes((0x80 | _CLOSE, len(payload))) + payload
    mask = secrets.token_bytes(4)
    hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x80 | _CLOSE, 0x80 | len(payload))) + mask + hidden


def _header(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return the first byte of the header at `at`, its payload's length and begin; None if it is incomplete."""
    if at + 2 > len(data):
        return None
    first, second = data[at], data[at + 1]
    length = second & 0x7F
    begin = at + 2
    if length == _LONG:
        begin += 2
        length = int.from_bytes(data[at + 2 : begin])
    elif length == _VERY_LONG:
        begin += 8
        length = int.from_bytes(data[at + 2 : begin])
    if second & 0x80:
        begin += 4
    return None if begin > len(data) else (first, length, begin)
