"""Serves the OpenAPI document as JSON and as an HTML page, both built once."""

from __future__ import annotations

import base64
import functools
import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.helpers import ETAG_ANY
from pydantic_core import to_json

from sandboxes.api.openapi.document import document
from sandboxes.api.openapi.html import STYLE, page
from sandboxes.api.openapi.operations import HTML, JSON

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

# The page has no script, loads nothing, allows no framing and applies no style but its own.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: web.Application) -> None:
    """Add `/openapi.json` and `/docs`. They need no key, like `/health`: they reveal none of the settings."""
    for_programs, for_people = _bodies()
    app.router.add_get("/openapi.json", _serve(for_programs, JSON, {}))
    app.router.add_get("/docs", _serve(for_people, HTML, {"Content-Security-Policy": _PAGE_POLICY}))


@functools.cache
def _bodies() -> tuple[bytes, bytes]:
    """Return the document and the page, which are the same for every application."""
    built = document()
    return to_json(built), page(built).encode()


def _serve(body: bytes, content_type: str, headers: dict[str, str]) -> Handler:
    """Return a handler that sends the bytes, or 304 if the request's If-None-Match has their ETag."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    # A new release may change the document, so caches must revalidate.
    headers = {**headers, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}

    async def serve(request: web.Request) -> web.StreamResponse:
        known = {one.value for one in request.if_none_match or ()}
        if known & {tag, ETAG_ANY}:
            response = web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        else:
            response = web.Response(body=body, headers=headers, content_type=content_type, charset="utf-8")
        response.etag = tag
        return response

    return serve
