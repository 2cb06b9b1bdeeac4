"""Server-sent events and waits, both of which end when the caller disconnects. Knows HTTP, but no route.

aiohttp's handler_cancellation stays off: it cancels every handler, but a create must continue without its caller. Work
that is useless without its caller checks the connection itself.

aiohttp-sse 3.0 (October 2026, works with our aiohttp) was considered. It does the small part, framing and comments. It
waits for a slow reader in the sender's task, notices a disconnect only at its next write, and does not end streams at
shutdown. The queue, the abort and the connection check would still be needed, and the framing is one line.
Format: https://html.spec.whatwg.org/#server-sent-events
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from sandboxes.api.app_keys import DEADLINES

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sandboxes.deadlines import Deadlines
    from sandboxes.service.events import Event, Subscriber
    from sandboxes.service.interface import Feed

logger = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    # nginx may buffer the response otherwise.
    "X-Accel-Buffering": "no",
}

Result = TypeVar("Result")


async def while_connected(request: web.Request, work: Coroutine[None, None, Result]) -> Result | None:
    """Await `work` and return its result. If the caller disconnects first, cancel `work` and return None."""
    task = asyncio.create_task(work)
    try:
        while not task.done() and request.transport is not None:
            await asyncio.wait({task}, timeout=request.app[DEADLINES].hang_up)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stream_events(request: web.Request, feed: Feed) -> web.StreamResponse:
    """Send the feed's events until the caller disconnects, reads too slowly, or the feed ends.

    Raises ClusterUnavailable, before anything is sent, if the feed can't start.
    """
    reader = await feed.join()
    try:
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        response.force_close()
        await response.prepare(request)
        logger.info("event stream to %s opened", request.remote)
        await while_connected(request, _until_ended(response, reader, request.app[DEADLINES]))
    finally:
        feed.leave(reader)
    transport = request.transport
    if transport is not None and (reader.is_dropped or request.protocol.writing_paused):
        # The client does not read; a graceful close would wait for it.
        logger.info("event stream to %s aborted: the client reads too slowly", request.remote)
        transport.abort()
    return response


async def _until_ended(response: web.StreamResponse, reader: Subscriber, deadlines: Deadlines) -> None:
    sending = asyncio.create_task(_send(response, reader, deadlines))
    ended = asyncio.create_task(reader.ended.wait())
    try:
        await asyncio.wait({sending, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        ended.cancel()
        results = await asyncio.gather(sending, ended, return_exceptions=True)
    if isinstance(results[0], Exception) and not isinstance(results[0], ConnectionError):
        raise results[0]


async def _send(response: web.StreamResponse, reader: Subscriber, deadlines: Deadlines) -> None:
    while True:
        try:
            async with asyncio.timeout(deadlines.sse_comment):
                event = await reader.next()
        except TimeoutError:
            part = b":\n\n"
        else:
            part = _frame(event)
        try:
            async with asyncio.timeout(deadlines.sse_write):
                await response.write(part)
        except TimeoutError:
            return  # the client does not read: `stream_events` aborts


def _frame(event: Event) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.number, event.name.encode(), event.data)
