"""Serves the OpenAPI document, for programs and as a page for people: made once, when the application is."""

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

# The page has no script, loads nothing, and may be framed by nobody; only its own style counts.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: web.Application) -> None:
    """Add `/openapi.json` and `/docs`, which are open like `/health`: they tell nothing of this service's settings."""
    for_programs, for_people = _bodies()
    app.router.add_get("/openapi.json", _serve(for_programs, JSON, {}))
    app.router.add_get("/docs", _serve(for_people, HTML, {"Content-Security-Policy": _PAGE_POLICY}))


@functools.cache
def _bodies() -> tuple[bytes, bytes]:
    """Return the document and the page; they are the same for every application."""
    made = document()
    return to_json(made), page(made).encode()


def _serve(body: bytes, content_type: str, headers: dict[str, str]) -> Handler:
    """Return what answers with the bytes, or with 304 if the caller says that it has them."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    # A new release may tell something else: a cache asks, and mostly gets 304.
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
