"""Dials sandboxes, and keeps few idle connections to them for a short time. Knows no request."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from typing import TYPE_CHECKING

from sandboxes.gateway.failures import Refusal, not_dialled
from sandboxes.gateway.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Container

    from sandboxes.deadlines import Deadlines
    from sandboxes.gateway.interface import GatewayMetrics
    from sandboxes.gateway.upstream import Address

# Idle connections to one sandbox's port.
MOST_IDLE = 32

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Unreachable(Refusal):
    """The network has no way to the address: the Pod may be elsewhere by now."""

    def __init__(self) -> None:
        super().__init__("unreachable", "The sandbox's address can't be reached")


class Connections:
    """Connections to sandboxes. An idle one is used again for the same Pod, address and port only."""

    def __init__(self, deadlines: Deadlines, metrics: GatewayMetrics) -> None:
        self._deadlines = deadlines
        self._metrics = metrics
        self._idle: dict[Address, list[Upstream]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """Return the number of idle connections."""
        return sum(map(len, self._idle.values()))

    async def get(self, address: Address) -> Upstream:
        """Return an idle connection, else a new one. Raises Refusal, by what the dial met."""
        loop = asyncio.get_running_loop()
        kept = self._idle.get(address)
        while kept:
            upstream = kept.pop()
            is_young = loop.time() - upstream.used_at < self._deadlines.gateway_idle
            if is_young and upstream.is_reusable:
                return upstream
            upstream.close()
        return await self._dial(address)

    def keep(self, upstream: Upstream) -> None:
        """Keep a connection whose response is complete for another request, or close it."""
        kept = self._idle.setdefault(upstream.address, [])
        if upstream.should_close or len(kept) >= MOST_IDLE:
            upstream.close()
            return
        loop = asyncio.get_running_loop()
        upstream.used_at = loop.time()
        kept.append(upstream)
        if self._timer is None:
            self._timer = loop.call_later(self._deadlines.gateway_idle, self._close_old)

    def forget(self, sandbox_id: str, *, but: Container[str] = ()) -> None:
        """Close the idle connections to a sandbox, but for those to Pods with these uids."""
        gone = [one for one in self._idle if one.sandbox_id == sandbox_id and one.uid not in but]
        for address in gone:
            self._close_idle(address)

    def close(self) -> None:
        """Close all idle connections."""
        for address in list(self._idle):
            self._close_idle(address)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_idle(self, address: Address) -> None:
        for upstream in self._idle.pop(address):
            upstream.close()

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time() - self._deadlines.gateway_idle
        for address, kept in list(self._idle.items()):
            for upstream in kept:
                if upstream.used_at <= before:
                    upstream.close()
            young = [upstream for upstream in kept if upstream.used_at > before]
            if young:
                self._idle[address] = young
            else:
                del self._idle[address]
        again = loop.call_later(self._deadlines.gateway_idle, self._close_old) if self._idle else None
        self._timer = again

    async def _dial(self, address: Address) -> Upstream:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._deadlines.gateway_dial):
                upstream = await _connect(loop, address)
        except TimeoutError as error:
            detail = f"The sandbox's address did not answer within {self._deadlines.gateway_dial:g} s"
            raise Refusal("dial-timeout", detail) from error
        except OSError as error:
            raise _refusal_of(error, address.port) from error
        self._metrics.dialled(loop.time() - began)
        return upstream


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> Upstream:
    host = ipaddress.ip_address(address.host)
    sock = socket.socket(socket.AF_INET6 if host.version == 6 else socket.AF_INET, socket.SOCK_STREAM)  # noqa: PLR2004 - of IPv6
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.host, address.port))
        _refuse_own(sock)
        _, upstream = await loop.create_connection(lambda: Upstream(loop, address, sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return upstream


def _refuse_own(sock: socket.socket) -> None:
    """Raise Refusal for a connection to this machine itself: the kernel gives both ends one address then.

    On loopback that is no sign: there, problem_of decides.
    """
    own, peer = (ipaddress.ip_address(name[0]) for name in (sock.getsockname(), sock.getpeername()))
    if own == peer and not own.is_loopback:
        raise not_dialled("it is the gateway's own")


def _refusal_of(error: OSError, port: int) -> Refusal:
    if error.errno in _UNREACHABLE:
        return Unreachable()
    if error.errno in _EXHAUSTED:
        return Refusal("no-descriptors", "The gateway has too many connections")
    if error.errno == errno.ETIMEDOUT:
        return Refusal("dial-timeout", "The sandbox's address did not answer")
    detail = f"Nothing in the sandbox listens on port {port}: the connection was refused"
    return Refusal("refused", detail)
