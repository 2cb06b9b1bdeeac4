"""A test server that treats callers who hang up as the service's own does (sandboxes/api/server.py)."""

from __future__ import annotations

from typing import Any

from aiohttp.test_utils import TestServer
from aiohttp.web_runner import BaseRunner

from sandboxes.logs import AccessLogger


class LikeOurs(TestServer):
    """aiohttp's TestServer cancels a handler whose caller hangs up; a server that is not for tests does not."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return await super()._make_runner(
            **{**options, "handler_cancellation": False, "access_log_class": AccessLogger}
        )
