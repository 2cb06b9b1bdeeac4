"""Writing responses: JSON, written objects with their warnings, and watches."""

import json
import logging
from contextlib import aclosing
from http import HTTPStatus

from aiohttp import web
from multidict import CIMultiDict

from devcluster.api import Answer
from devcluster.listing import Listing, ListOptions
from devcluster.requests import Target
from devcluster.store import compact

log = logging.getLogger(__name__)

JSON = "application/json"
UNCACHED = {"Cache-Control": "no-cache, private"}


class WatchResponse(web.StreamResponse):
    """A watch: its events are written while they come, until the watch ends or the client is gone."""

    def __init__(self, listing: Listing, target: Target, options: ListOptions) -> None:
        super().__init__(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
        self._listing = listing
        self._target = target
        self._options = options

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all events, then the end. aiohttp calls this when the head is out."""
        events = self._listing.watch(self._target.resource, self._target.namespace, self._options)
        try:
            async with aclosing(events):
                async for event in events:
                    await self.write(event)
        except ConnectionError:
            log.debug("a watch of %s lost its client", self._target.resource.plural)
            return
        await super().write_eof(data)


def respond(
    body: bytes, code: HTTPStatus = HTTPStatus.OK, warnings: list[str] | None = None, media_type: str = JSON
) -> web.Response:
    """Make a response; a warning goes into a header each, from where kubectl prints it."""
    headers: CIMultiDict[str] = CIMultiDict({"Cache-Control": "no-cache, private", "Content-Type": media_type})
    for warning in warnings or ():
        headers.add("Warning", f"299 - {json.dumps(warning, ensure_ascii=False)}")
    return web.Response(body=body, status=code, headers=headers)


def written(answer: Answer) -> web.Response:
    """Make the response to a write."""
    return respond(compact(answer.obj), answer.code, answer.warnings)
