"""Forwards one HTTP request, and its response as it comes; never holds a whole body."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import ClientError, web
from aiohttp.http import HttpProcessingError, HttpVersion11

from sandboxes.gateway.failures import bad_request, bad_response, no_response
from sandboxes.gateway.headers import response_head, status_line
from sandboxes.gateway.piping import pipe

if TYPE_CHECKING:
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from sandboxes.gateway.client import Incoming
    from sandboxes.gateway.exchanges import Exchange
    from sandboxes.gateway.headers import Place
    from sandboxes.gateway.upstream import Upstream

logger = logging.getLogger(__name__)

CONTINUE, SWITCHING, OK, NO_CONTENT, NOT_MODIFIED = 100, 101, 200, 204, 304
_WITHOUT_BODY = frozenset({NO_CONTENT, NOT_MODIFIED})
_LAST_CHUNK = b"0\r\n\r\n"


class BrokenResponse(Exception):
    """The response ended before it was whole: its caller must not take it for a whole one."""


class Call(NamedTuple):
    """A request on its way."""

    incoming: Incoming
    exchange: Exchange
    upstream: Upstream
    place: Place


def chunk_of(data: bytes) -> bytes:
    """Return the data as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def relay(call: Call, head: bytes) -> tuple[bool, bool]:
    """Forward the request and its response.

    Returns whether the caller's connection may have another request, and whether the sandbox's may. Raises Refusal
    before the response began, BrokenResponse after that.
    """
    incoming, upstream = call.incoming, call.upstream
    payload, chunked = incoming.payload, incoming.parsed.chunked
    uploading = None
    upstream.expect_response(has_body=incoming.method != "HEAD")
    if payload.is_eof():
        body = payload.read_nowait()
        upstream.send(head + ((chunk_of(body) if body else b"") + _LAST_CHUNK if chunked else body))
    else:
        upstream.send(head)
        uploading = asyncio.create_task(_upload(call, chunked=chunked))
    try:
        message, content = await read_head(call)
        if message.code == SWITCHING:
            raise bad_response()
        keeps_caller = await answer(call, message, content)
        return keeps_caller, payload.is_eof() and (uploading is None or uploading.done())
    finally:
        if uploading is not None:
            await _stop(uploading)


async def read_head(call: Call) -> tuple[RawResponseMessage, StreamReader]:
    """Return the response's head and body. Passes on a 100, if the caller waits for it. Raises Refusal."""
    incoming, exchange = call.incoming, call.exchange
    awaits_continue = incoming.version >= HttpVersion11 and "expect" in incoming.headers
    while True:
        try:
            message, content = await call.upstream.read()
        except HttpProcessingError as error:
            raise exchange.ended or bad_response() from error
        except (ClientError, OSError) as error:
            raise exchange.ended or no_response() from error
        if message.code >= OK or message.code == SWITCHING:
            _check_coding(message)
            return message, content
        if message.code < CONTINUE:
            raise bad_response()
        if message.code == CONTINUE and awaits_continue:
            incoming.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            awaits_continue = False


def _check_coding(message: RawResponseMessage) -> None:
    """Raise Refusal for a body in another coding than chunks: it would come in one that no header names."""
    codings = message.headers.getall("Transfer-Encoding", ())
    if codings and [one.strip().lower() for one in codings] != ["chunked"]:
        raise bad_response()


async def answer(call: Call, message: RawResponseMessage, content: StreamReader) -> bool:
    """Send the response to the caller; return whether its connection may have another request."""
    incoming, client = call.incoming, call.incoming.client
    is_11 = incoming.version >= HttpVersion11
    has_body = incoming.method != "HEAD" and message.code not in _WITHOUT_BODY
    has_length = not message.chunked and "Content-Length" in message.headers
    chunked = has_body and not has_length and is_11
    # The rest of a request that was answered early can't be told from another request.
    keeps = incoming.may_be_followed and (is_11 or has_length or not has_body)
    more = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    if not keeps:
        more += b"Connection: close\r\n"
    elif not is_11:
        more += b"Connection: keep-alive\r\n"
    try:
        head = response_head(
            status_line(message.code, message.reason.encode(errors="surrogateescape")),
            message.raw_headers,
            call.place,
            more,
            without_length=message.chunked or message.code == NO_CONTENT,
        )
    except ValueError as error:
        raise bad_response() from error
    call.exchange.is_answering = True
    incoming.answered = message.code
    if not has_body:
        client.send(head)
        await client.drain()
        return keeps
    try:
        if content.is_eof():
            body = content.read_nowait()
            client.send(head, (chunk_of(body) if body else b"") + _LAST_CHUNK if chunked else body)
        else:
            length = int(message.headers["Content-Length"]) if has_length else None
            await _stream(call, head, content, length, chunked=chunked)
    except ConnectionError:  # of the caller
        raise
    except (ClientError, HttpProcessingError) as error:
        raise BrokenResponse from error
    except RuntimeError as error:  # what aiohttp raises for reading after the end of a connection
        if call.upstream.connected:
            raise
        raise BrokenResponse from error
    await client.drain()
    return keeps


async def _stream(call: Call, head: bytes, content: StreamReader, length: int | None, *, chunked: bool) -> None:
    client = call.incoming.client
    data = content.read_nowait() if content.total_bytes else b""
    client.send(head, (chunk_of(data) if chunked and data else data))
    await pipe(call.upstream, content, length, client)
    while data := await content.readany():
        if chunked:
            client.send(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            client.send(data)
        await client.drain()
    if chunked:
        client.send(_LAST_CHUNK)


async def _upload(call: Call, *, chunked: bool) -> None:
    """Send the request's body as it comes."""
    payload, upstream = call.incoming.payload, call.upstream
    # Not with an Upgrade: aiohttp waits for the end of the body to make it.
    is_known = not chunked and not call.incoming.parsed.upgrade
    try:
        await pipe(call.incoming.client, payload, call.incoming.content_length if is_known else None, upstream)
        while data := await payload.readany():
            upstream.send(chunk_of(data) if chunked else data)
            await upstream.drain()
    except (web.RequestPayloadError, HttpProcessingError):
        call.exchange.end(bad_request("The request's body is not valid HTTP"))
    except (ClientError, ConnectionError):
        return  # a side is gone; who reads from the sandbox learns which
    else:
        if chunked:
            upstream.send(_LAST_CHUNK)


async def _stop(uploading: asyncio.Task[None]) -> None:
    if not uploading.done():
        uploading.cancel()
        await asyncio.wait([uploading])
    if not uploading.cancelled() and (error := uploading.exception()) is not None:
        raise error
