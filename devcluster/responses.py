"""Writes responses: JSON, objects with warnings, and watches."""

import json
import logging
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from devcluster.api import Answer
from devcluster.queries import ListOptions
from devcluster.requests import Target
from devcluster.store import compact
from devcluster.watches import Watches

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

JSON = "application/json"
UNCACHED = {"Cache-Control": "no-cache, private"}


class WatchResponse(web.StreamResponse):
    """A watch: writes events as they occur, until the watch ends or the client disconnects."""

    cut_after: int | None = None
    """Bytes after which to cut the connection, for tests."""

    def __init__(self, watches: Watches, target: Target, options: ListOptions) -> None:
        super().__init__(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
        self._watches = watches
        self._target = target
        self._options = options
        self._transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Store the writer for the events. aiohttp calls this first."""
        self._transport = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all events, then the end. aiohttp calls this after it has sent the head."""
        events = self._watches.events(self._target.resource, self._target.namespace, self._options)
        try:
            async with aclosing(events):
                async for event in events:
                    await self._write(event)
        except ConnectionError:
            log.debug("a watch of %s is cut off", self._target.resource.plural)
            if self._transport is not None:
                self._transport.abort()
            return
        await super().write_eof(data)

    async def _write(self, event: bytes) -> None:
        if self.cut_after is None:
            await self.write(event)
            return
        await self.write(event[: self.cut_after])
        self.cut_after -= len(event)
        if self.cut_after <= 0:
            raise ConnectionAbortedError


class CutResponse(web.StreamResponse):
    """A response that announces the whole body and is cut off; after 0 bytes even before the head."""

    def __init__(self, whole: web.Response, after_bytes: int) -> None:
        super().__init__(status=whole.status, headers=whole.headers)
        self._part = bytes(whole.body or b"")[:after_bytes]  # type: ignore[arg-type]  # bodies here are bytes
        self._transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Store the connection. aiohttp calls this first."""
        self._transport = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the part and cut the connection. aiohttp calls this when the head is ready."""
        if self._part:
            await self.write(self._part + data)
        if self._transport is not None:
            self._transport.abort()
        raise ConnectionAbortedError


def with_warning(response: web.StreamResponse, text: str) -> None:
    """Add a Warning header, which kubectl prints."""
    response.headers.add("Warning", f"299 - {json.dumps(text, ensure_ascii=False)}")


def respond(
    body: bytes, code: HTTPStatus = HTTPStatus.OK, warnings: list[str] | None = None, media_type: str = JSON
) -> web.Response:
    """Build a JSON response."""
    response = web.Response(body=body, status=code, headers={**UNCACHED, "Content-Type": media_type})
    for warning in warnings or ():
        with_warning(response, warning)
    return response


def written(answer: Answer) -> web.Response:
    """Build the response to a write."""
    return respond(compact(answer.obj), answer.code, answer.warnings)
