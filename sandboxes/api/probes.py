"""Answers of /health, /readyz and /metrics: of the API, and of a gateway in a process of its own. Asks no cluster."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.api.middlewares import json_response

if TYPE_CHECKING:
    from sandboxes.ops.health import Readiness
    from sandboxes.ops.metrics import Metrics


def alive() -> web.Response:
    """Return that the process is up."""
    return json_response({"status": "ok"})


def readiness_response(found: Readiness) -> web.Response:
    """Return whether the process can do its work, and which checks fail."""
    status = http.HTTPStatus.OK if found.is_ready else http.HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({"ready": found.is_ready, "checks": found.checks}, status=status)


def metrics_response(request: web.Request, metrics: Metrics) -> web.Response:
    """Return the metrics, in the format that the request prefers."""
    body, content_type = metrics.text(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})
