"""What lasts as long as its caller stays: server-sent events, and waiting for a sandbox. Knows HTTP; no route.

Creates must go on when their caller hangs up, so aiohttp's handler_cancellation stays off, which would cancel every
handler. What is of no use without its caller looks for itself whether that one is still there.

aiohttp-sse 3.0 (October 2026, works with our aiohttp) was considered for the events. It frames them and sends
comments, which is the small part. A slow reader it waits for, up to its time limit, in the task of whoever sends; that
a reader is gone it notices when it next writes; and it has no end of its own at shutdown. The queue, the abort and the
watching would be here all the same, and the framing is one line. Format: https://html.spec.whatwg.org/#server-sent-events
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
    from sandboxes.service.events import Event, EventBroker, Subscriber

logger = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    # Proxies (nginx) may hold an answer back to send it in one piece.
    "X-Accel-Buffering": "no",
}

Result = TypeVar("Result")


async def while_connected(request: web.Request, work: Coroutine[None, None, Result]) -> Result | None:
    """Return what `work` returns; cancel it, and return None, if the caller hangs up before."""
    task = asyncio.create_task(work)
    try:
        while not task.done() and request.transport is not None:
            await asyncio.wait({task}, timeout=request.app[DEADLINES].hang_up)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stream_events(request: web.Request, feed: EventBroker) -> web.StreamResponse:
    """Send the feed's events until the caller hangs up, is too slow, or the feed ends.

    Raises ClusterUnavailable, before anything is sent, if the feed can't begin.
    """
    reader = await feed.join()
    try:
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        response.force_close()
        await response.prepare(request)
        logger.info("%s reads events from now on", request.remote)
        await while_connected(request, _until_ended(response, reader, request.app[DEADLINES]))
    finally:
        feed.leave(reader)
    transport = request.transport
    if transport is not None and (reader.is_dropped or request.protocol.writing_paused):
        # It does not take what it was sent; a proper end would wait for it.
        logger.info("%s reads events too slowly and is cut off", request.remote)
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
            return  # it does not read: cut off


def _frame(event: Event) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.number, event.name.encode(), event.data)
