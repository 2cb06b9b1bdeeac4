"""How the service logs: one line an event, each with the id of the request that it belongs to."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractAccessLogger

if TYPE_CHECKING:
    from aiohttp import web

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")

_SERVER_ERROR = 500

# Asked for every few seconds by what watches over the process.
QUIET_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics"})


class RequestIdFilter(logging.Filter):
    """Puts the current request's id on every record, `-` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id; lets every record pass."""
        record.request_id = REQUEST_ID.get()
        return True


def configure_logging(level: str) -> None:
    """Log to stderr from `level` on."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s [%(request_id)s] %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class AccessLogger(AbstractAccessLogger):
    """One line a request: ERROR for 5xx, else INFO; health checks only at DEBUG."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log the request; `time` is in seconds."""
        if response.status >= _SERVER_ERROR:
            level = logging.ERROR
        else:
            level = logging.DEBUG if request.path in QUIET_PATHS else logging.INFO
        # The path as it came, percent-encoded: a decoded one could hold line breaks and forge lines of the log.
        path = request.rel_url.raw_path
        self.logger.log(
            level, "%s %s %s %d %.0f ms", request.remote, request.method, path, response.status, time * 1000
        )
