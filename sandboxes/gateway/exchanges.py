"""Tracks requests and WebSockets under way: their number, whether each is still permitted, and whether bytes flow.

A token that ends, a sandbox that ends, and silence end them. Bytes that flow count as use of the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from sandboxes.gateway.failures import Refusal, not_found
from sandboxes.status.reasons import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.gateway.client import Client
    from sandboxes.gateway.interface import Ground
    from sandboxes.gateway.targets import Permitted, Targets
    from sandboxes.gateway.upstream import Upstream
    from sandboxes.gateway.watched_keys import WatchedKeys
    from sandboxes.gateway.websocket import Tunnel


class Exchange:
    """A request under way. `ended`: why the gateway has ended it, or None."""

    __slots__ = (
        "client",
        "ended",
        "is_answering",
        "permitted",
        "sandbox_id",
        "seen",
        "seen_at",
        "timer",
        "token",
        "tunnel",
        "upstream",
        "used_at",
    )

    def __init__(self, sandbox_id: str, token: str, permitted: Permitted, client: Client, now: float) -> None:
        self.sandbox_id = sandbox_id
        self.token = token
        self.permitted = permitted
        self.client = client
        self.upstream: Upstream | None = None
        self.tunnel: Tunnel | None = None
        self.is_answering = False
        self.ended: Refusal | None = None
        self.timer: asyncio.TimerHandle | None = None
        # Bytes from the caller and from the sandbox when they were last looked at.
        self.seen = (client.received, 0)
        self.seen_at = self.used_at = now

    def reach(self, upstream: Upstream) -> None:
        """Note the connection on which the request goes to the sandbox."""
        self.upstream = upstream
        self.seen = (self.seen[0], upstream.received)

    def bytes_now(self) -> tuple[int, int]:
        """Return the bytes that the caller and the sandbox have sent on their connections."""
        return self.client.received, self.upstream.received if self.upstream is not None else 0

    def end(self, why: Refusal) -> None:
        """End it now. The caller gets the answer, a cut connection if it has part of another, or a close frame."""
        if self.ended is not None:
            return
        self.ended = why
        if self.tunnel is not None:
            self.tunnel.end(why.detail)
        elif self.is_answering:
            self.client.abort()
        if self.upstream is not None and self.tunnel is None:
            self.upstream.abort()


class Exchanges:
    """All requests under way."""

    def __init__(self, ground: Ground, targets: Targets, keys: WatchedKeys) -> None:
        self._pods = ground.pods
        self._keys = keys
        self._targets = targets
        self._metrics = ground.metrics
        self._use_interval = ground.deadlines.gateway_use
        self._silence = ground.settings.sandbox_gateway_silence
        self._most = ground.settings.sandbox_gateway_max_connections
        self._tick = min(self._silence / 4, ground.deadlines.gateway_tick)
        self._keys_interval = ground.deadlines.gateway_keys
        self._is_quiet: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keys_timer: asyncio.TimerHandle | None = None
        self._open: dict[str, set[Exchange]] = {}
        keys.changed.connect(self._on_keys)

    def __len__(self) -> int:
        """Return the number of requests under way."""
        return sum(map(len, self._open.values()))

    def begin(self, sandbox_id: str, token: str, permitted: Permitted, client: Client) -> Exchange:
        """Begin a request, and record the use. Raises Refusal if the sandbox has as many as it may have."""
        group = self._open.get(sandbox_id)
        if group is None:
            group = self._open[sandbox_id] = set()
        elif len(group) >= self._most and _count_of(group, permitted) >= self._most:
            detail = f"The sandbox has {self._most} connections, as many as it may have"
            raise Refusal("too-many", detail)
        loop = asyncio.get_running_loop()
        exchange = Exchange(sandbox_id, token, permitted, client, loop.time())
        group.add(exchange)
        client.is_known = True
        self._pods.note_use(permitted.candidate)
        self._metrics.changed_open(1)
        if permitted.grant.expires_at is not None:
            exchange.timer = loop.call_later(permitted.grant.expires_at - time.time(), self._check, exchange)
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._look)
        if self._keys_timer is None:
            self._keys_timer = loop.call_later(self._keys_interval, self._read_keys)
        return exchange

    def finish(self, exchange: Exchange) -> None:
        """Note the end of a request."""
        group = self._open[exchange.sandbox_id]
        group.discard(exchange)
        if not group:
            del self._open[exchange.sandbox_id]
        if exchange.timer is not None:
            exchange.timer.cancel()
        self._count(exchange)
        self._metrics.changed_open(-1)
        if self._is_quiet is not None and self._has_only_tunnels():
            self._is_quiet.set()

    def on_changed(self, sandbox_id: str) -> None:
        """End the requests whose token is no longer valid, or whose sandbox has ended."""
        for exchange in list(self._open.get(sandbox_id, ())):
            self._check(exchange)

    async def wait(self, seconds: float) -> None:
        """Wait until no request is under way but WebSockets, at most so many seconds."""
        if self._has_only_tunnels():
            return
        self._is_quiet = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_quiet.wait()

    def end_all(self, why: Refusal) -> None:
        """End every request."""
        for exchange in list(self._all()):
            exchange.end(why)

    def _check(self, exchange: Exchange) -> None:
        found = self._targets.find(exchange.sandbox_id, exchange.token)
        uid = exchange.permitted.candidate.subject.uid
        if found is None or found.candidate.subject.uid != uid or has_ended(found.candidate.pod):
            exchange.end(not_found())
            self._targets.on_changed(exchange.sandbox_id)  # it may be waiting for the sandbox
            return
        exchange.permitted = found
        expires_at = found.grant.expires_at
        if expires_at is not None:  # the clock was set back, or the Pod has only changed
            if exchange.timer is not None:
                exchange.timer.cancel()
            loop = asyncio.get_running_loop()
            exchange.timer = loop.call_later(max(0.0, expires_at - time.time()), self._check, exchange)

    def _on_keys(self) -> None:
        """End the requests whose token no key has signed any more."""
        for exchange in list(self._all()):
            self._check(exchange)

    def _read_keys(self) -> None:
        """Read the keys while anything is open: no request may come that reads them."""
        self._keys.current()
        loop = asyncio.get_running_loop()
        self._keys_timer = loop.call_later(self._keys_interval, self._read_keys) if self._open else None

    def _look(self) -> None:
        """Look whether bytes have flowed since the last look."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for exchange in list(self._all()):
            if exchange.seen != (bytes_now := exchange.bytes_now()):
                exchange.seen, exchange.seen_at = bytes_now, now
                if now - exchange.used_at >= self._use_interval:
                    exchange.used_at = now
                    self._pods.note_use(exchange.permitted.candidate)
            elif now - exchange.seen_at >= self._silence:
                detail = f"No byte in either direction for {self._silence:g} s"
                if exchange.is_answering and exchange.ended is None:
                    self._metrics.failed("silence")
                exchange.end(Refusal("silence", detail))
            self._count(exchange)
        self._timer = loop.call_later(self._tick, self._look) if self._open else None

    def _all(self) -> Iterable[Exchange]:
        return (exchange for group in self._open.values() for exchange in group)

    def _has_only_tunnels(self) -> bool:
        return all(exchange.tunnel is not None for exchange in self._all())

    def _count(self, exchange: Exchange) -> None:
        client, upstream = exchange.client, exchange.upstream
        self._metrics.moved(client.take_uncounted(), upstream.take_uncounted() if upstream is not None else 0)


def _count_of(group: Iterable[Exchange], permitted: Permitted) -> int:
    """Return how many are for the same cluster's sandbox: the id may be in use in another cluster, too."""
    cluster = permitted.candidate.subject.cluster
    return sum(exchange.permitted.candidate.subject.cluster == cluster for exchange in group)
