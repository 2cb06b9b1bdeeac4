"""Forwards a request: checks its token, finds its sandbox, connects, and returns the response. Asks no cluster."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp.http import HttpVersion10, HttpVersion11

from sandboxes.gateway.client import Incoming, Sent
from sandboxes.gateway.dialling import Connections, Unreachable
from sandboxes.gateway.exchanges import Exchanges
from sandboxes.gateway.failures import Refusal, answer_of, bad_request, bad_response, not_found
from sandboxes.gateway.headers import AS_SENT, CHUNKED, UPGRADE, Place, request_head, switch_head
from sandboxes.gateway.http import SWITCHING, BrokenResponse, Call, answer, read_head, relay
from sandboxes.gateway.methods import METHODS, unknown_method
from sandboxes.gateway.origins import HOST, Origins, is_from_elsewhere, tokens_in
from sandboxes.gateway.targets import Targets
from sandboxes.gateway.watched_keys import WatchedKeys
from sandboxes.gateway.websocket import Tunnel

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.exchanges import Exchange
    from sandboxes.gateway.interface import Ground
    from sandboxes.gateway.origins import Wanted
    from sandboxes.gateway.upstream import Address, Upstream

logger = logging.getLogger(__name__)


class Proxy:
    """Forwards requests to sandboxes."""

    def __init__(self, ground: Ground) -> None:
        self._pods, _, self._settings, self._metrics, self._deadlines = ground
        keys = WatchedKeys(ground.keys)
        self._origins = Origins(self._settings.sandbox_gateway_url)
        self._targets = Targets(self._pods, keys, self._settings.sandbox_gateway_wait)
        self.connections = Connections(self._deadlines, self._metrics)
        self.exchanges = Exchanges(ground, self._targets, keys)
        self._pods.changed.connect(self._on_changed)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request: by its sandbox's response, or by an error in JSON."""
        assert isinstance(request, Incoming)  # noqa: S101 - the server makes no other
        began = asyncio.get_running_loop().time()
        kind = "websocket" if _upgrades(request) else "http"
        wanted: Wanted | None = None
        keeps = False
        try:
            wanted = self._wanted(request)
            keeps = await self._forward(request, wanted)
            if keeps:
                request.client.note_rest()
        except Refusal as refusal:
            keeps = request.may_be_followed and refusal.kind != "bad-request"
            self._refuse(request, refusal, keeps=keeps)
            # Also one that is read on, to be closed when its body has come.
            request.client.note_rest()
        except BrokenResponse:
            self._metrics.failed("broken")
            request.client.abort()
        except ConnectionError:  # the caller is gone
            request.client.abort()
        finally:
            self._metrics.answered(kind, request.answered)
            if logger.isEnabledFor(logging.DEBUG):
                seconds = asyncio.get_running_loop().time() - began
                _log(request, wanted, seconds)
        return Sent(request.answered or HTTPStatus.OK, keep_alive=keeps)

    def close(self) -> None:
        """Close the idle connections, and end the requests under way."""
        self.exchanges.end_all(Refusal("not-usable", "The gateway is shutting down"))
        self.connections.close()

    def _wanted(self, request: Incoming) -> Wanted:
        """Return what the request is for. Raises Refusal for one that is for no sandbox, or may not be served."""
        if request.client.is_surplus:
            raise Refusal("too-many-in-all", "The gateway has as many connections as it may have")
        if request.method == "CONNECT":
            status = HTTPStatus.METHOD_NOT_ALLOWED
            raise Refusal("bad-request", "CONNECT is not supported", status=status, more=b"Allow: *\r\n")
        if request.method not in METHODS:
            raise unknown_method()
        if request.version < HttpVersion10:
            raise bad_request("The request has no version of HTTP that is supported")
        coding = request.headers.getall("Transfer-Encoding", ())
        if coding and [one.strip().lower() for one in coding] != ["chunked"]:
            raise bad_request("The only Transfer-Encoding that is supported is `chunked`")
        if coding and request.version < HttpVersion11:
            raise bad_request("HTTP/1.0 has no Transfer-Encoding")
        if not HOST.fullmatch(request.headers.get("Host", "")):
            raise bad_request("The Host of the request is not valid")
        cookies = [value for name, value in request.raw_headers if name.lower() == b"cookie"]
        wanted = self._origins.wanted(request.raw_path, request.headers.get("Host", ""), cookies)
        if wanted is None:
            # As long as for a token that is compared.
            self._targets.permitted("", "")
            raise not_found()
        if not wanted.prefix and len(tokens := tokens_in(cookies)) > 1:
            valid = (token for token in tokens if self._targets.find(wanted.sandbox_id, token) is not None)
            return wanted._replace(token=next(valid, wanted.token))
        return wanted

    async def _forward(self, request: Incoming, wanted: Wanted) -> bool:
        """Return whether the caller's connection may have another request."""
        permitted = self._targets.permitted(wanted.sandbox_id, wanted.token)
        if not wanted.prefix:
            self._check_origin(request, wanted)
        exchange = self.exchanges.begin(wanted.sandbox_id, wanted.token, permitted, request.client)
        try:
            address = await self._targets.address(wanted.sandbox_id, wanted.token, permitted)
            upstream = await self._reach(exchange, address)
            is_reusable = False
            try:
                exchange.reach(upstream)
                if exchange.ended is not None:
                    raise exchange.ended
                place = self._place(request, wanted, upstream.address)
                call = Call(request, exchange, upstream, place)
                head = _head(request, wanted, place)
                if _upgrades(request):
                    await self._upgrade(call, head)
                    return False
                keeps, is_reusable = await relay(call, head)
                return keeps
            finally:
                if is_reusable:
                    self.connections.keep(upstream)
                elif exchange.tunnel is not None:
                    upstream.finish(self._deadlines.gateway_close)
                else:
                    upstream.abort()
        finally:
            self.exchanges.finish(exchange)

    async def _reach(self, exchange: Exchange, address: Address) -> Upstream:
        """Return a connection to the address. If there is no way to it, look once whether the Pod has another."""
        candidate = exchange.permitted.candidate
        try:
            upstream = await self.connections.get(address)
        except Unreachable:
            self._pods.note_dial(candidate, reached=False)
            self._targets.forget(exchange.sandbox_id)
            self.connections.forget(exchange.sandbox_id)
            permitted = self._targets.permitted(exchange.sandbox_id, exchange.token)
            again = await self._targets.address(exchange.sandbox_id, exchange.token, permitted)
            if again == address:
                raise
            return await self.connections.get(again)
        except Refusal as refusal:
            if refusal.kind in {"refused", "dial-timeout"}:
                self._pods.note_dial(candidate, reached=refusal.kind == "refused")
            raise
        self._pods.note_dial(candidate, reached=True)
        return upstream

    async def _upgrade(self, call: Call, head: bytes) -> None:
        """Open a WebSocket and pass it on until it ends; or send the response by which the sandbox refuses it."""
        incoming, upstream, exchange = call.incoming, call.upstream, call.exchange
        upstream.expect_response(has_body=True)
        upstream.send(head)
        message, content = await read_head(call)
        if message.code != SWITCHING:
            await answer(call, message, content)
            return
        if not upstream.upgraded or message.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_response()
        try:
            reason = message.reason.encode(errors="surrogateescape")
            switch = switch_head(reason, message.raw_headers, call.place)
        except ValueError as error:
            raise bad_response() from error
        tunnel = Tunnel(
            incoming.client,
            upstream,
            self._settings.sandbox_gateway_max_message,
            self._deadlines.gateway_close,
        )
        incoming.client.send(switch)
        exchange.is_answering = True
        incoming.answered = message.code
        exchange.tunnel = tunnel
        tunnel.start()
        await tunnel.over.wait()
        if incoming.client.transport is not None and incoming.client.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._deadlines.gateway_close, incoming.client.transport.abort)

    def _place(self, request: Incoming, wanted: Wanted, address: Address) -> Place:
        peer = request.client.peername
        remote = peer[0] if isinstance(peer, tuple) else "unknown"
        prefix = wanted.prefix.encode(errors="surrogateescape")
        cookie = None
        if wanted.has_own_origin and wanted.prefix:
            cookie = self._origins.new_cookie(wanted.token)
        return Place(
            address.port,
            _hosts(address),
            prefix,
            remote.encode(),
            request.headers.get("Host", "").encode(errors="surrogateescape"),
            self._origins.host_of(wanted.sandbox_id),
            self._origins.scheme,
            b"/" if wanted.has_own_origin else prefix,
            cookie,
        )

    def _check_origin(self, request: Incoming, wanted: Wanted) -> None:
        given = {name.lower(): value for name, value in request.raw_headers}
        own = (given.get(b"host", b"").lower(), self._origins.host_of(wanted.sandbox_id))
        if is_from_elsewhere(request.method, given, own, upgrades=_upgrades(request)):
            raise Refusal("cross-site", "A page of another origin has sent this request")

    def _refuse(self, request: Incoming, refusal: Refusal, *, keeps: bool) -> None:
        self._metrics.failed(refusal.kind)
        request.answered = refusal.status
        transport = request.client.transport
        if request.client.writing_paused:  # it sends requests and reads no answers
            request.client.abort()
        elif transport is not None and not transport.is_closing():
            transport.write(answer_of(refusal, has_body=request.method != "HEAD", keep_alive=keeps))

    def _on_changed(self, sandbox_id: str) -> None:
        self._targets.on_changed(sandbox_id)
        self.exchanges.on_changed(sandbox_id)
        uids = {candidate.subject.uid for candidate in self._pods.find(sandbox_id)}
        self.connections.forget(sandbox_id, but=uids)


def _upgrades(request: Incoming) -> bool:
    """Whether the request opens a WebSocket. One with a body, which frames can't follow, does not."""
    message = request.parsed
    return (
        message.upgrade
        and request.method == "GET"
        and request.version >= HttpVersion11
        and message.headers.get("Upgrade", "").lower() == "websocket"
        and not message.chunked
        and message.headers.get("Content-Length", "0") == "0"
    )


def _head(request: Incoming, wanted: Wanted, place: Place) -> bytes:
    target = wanted.target.encode(errors="surrogateescape")
    framing = UPGRADE if _upgrades(request) else CHUNKED if request.parsed.chunked else AS_SENT
    try:
        return request_head(request.method, target, request.raw_headers, place, framing)
    except ValueError as error:
        raise bad_request("A header of the request is not valid") from error


def _hosts(address: Address) -> tuple[bytes, ...]:
    """Return the names by which a sandbox may call itself in a Location."""
    own = f"[{address.host}]" if ":" in address.host else address.host
    names = [name.encode() for name in ("localhost", "127.0.0.1", "[::1]", own)]
    with_port = [b"%s:%d" % (name, address.port) for name in names]
    return (*with_port, *names) if address.port == 80 else tuple(with_port)  # noqa: PLR2004 - HTTP's own


def _log(request: Incoming, wanted: Wanted | None, seconds: float) -> None:
    """Write the access line: no token, no query; no path at all of what names no sandbox."""
    status = int(request.answered)
    path = wanted.target.partition("?")[0] if wanted is not None and status != HTTPStatus.NOT_FOUND else "-"
    sandbox_id = wanted.sandbox_id if wanted is not None and status != HTTPStatus.NOT_FOUND else "-"
    logger.debug(
        "%s %s %s %r %d %d ms", request.remote, request.method, sandbox_id, path, status, round(seconds * 1000)
    )
