"""A test server that handles disconnected clients as the service does (sandboxes/api/server.py)."""

from __future__ import annotations

from typing import Any

from aiohttp.test_utils import TestServer
from aiohttp.web_runner import BaseRunner

from sandboxes.logs import AccessLogger


class ServiceServer(TestServer):
    """A TestServer that does not cancel the handler when the client disconnects."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return await super()._make_runner(
            **{**options, "handler_cancellation": False, "access_log_class": AccessLogger}
        )
