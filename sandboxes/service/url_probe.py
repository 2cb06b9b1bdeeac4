"""Probes a sandbox's URL from this process: one HTTP request, of which only the status counts.

The server runs untrusted code. So a probe follows no redirect, reads no body, keeps no cookie, uses no proxy from the
environment, and has a timeout.
"""

from __future__ import annotations

import asyncio
import enum
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from sandboxes.deadlines import Deadlines

# The path of the Pod's own probes (manifests/sandbox/pod.yaml).
PATH = "/v1/sandbox"

# Concurrent probes. Each needs a file descriptor, and the usual limit is 1,024.
MAX_AT_ONCE = 100


class Reach(enum.Enum):
    """The result of a probe."""

    ANSWERS = enum.auto()
    # A server accepts connections but does not answer with 200 (yet).
    NOT_YET = enum.auto()
    NOT_REACHED = enum.auto()


class UrlProber:
    """Probes sandbox URLs. Call `close` when done; a later probe opens a new session."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(self, sandbox_url: str) -> Reach:
        """Probe once, after waiting for a free slot, within the `url_answer` deadline. Never raises."""
        async with self._free:
            try:
                # Opened here because a session needs the running loop.
                async with self._opened().get(f"{sandbox_url}{PATH}", allow_redirects=False) as response:
                    return Reach.ANSWERS if response.status == HTTPStatus.OK else Reach.NOT_YET
            except aiohttp.ConnectionTimeoutError:
                return Reach.NOT_REACHED
            except (TimeoutError, aiohttp.ClientResponseError):
                return Reach.NOT_YET
            # Includes a connection closed without a response, as a node-port forwarder does.
            except (aiohttp.ClientError, OSError):
                return Reach.NOT_REACHED

    async def close(self) -> None:
        """Close the HTTP session, if open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No connection or DNS reuse: a node port or address may soon belong to another sandbox.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._deadlines.url_answer, connect=self._deadlines.url_connect),
                trust_env=False,
            )
        return self._session
