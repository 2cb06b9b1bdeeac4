"""Whether a sandbox's URL answers this process: one HTTP request, of which only the status is looked at.

What answers is code that nobody has read. So no redirect is followed, no body is read, no cookie is kept, no proxy of
the environment is used, and each try has its time.
"""

from __future__ import annotations

import asyncio
import enum
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from sandboxes.deadlines import Deadlines

# What the probes of a sandbox ask for, too (manifests/sandbox/pod.yaml).
PATH = "/v1/sandbox"

# At once: each is an open file, and a system may allow no more than 1,024.
MAX_AT_ONCE = 100


class Reach(enum.Enum):
    """What came of a try."""

    ANSWERS = enum.auto()
    # Somebody is there, but does not answer with 200 (yet).
    NOT_YET = enum.auto()
    NOT_REACHED = enum.auto()


class UrlProber:
    """Asks URLs of sandboxes. `close` it in the end; it can be used again after that."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(self, sandbox_url: str) -> Reach:
        """Ask once; raises nothing, and takes self._deadlines.url_answer at most once it is its turn."""
        async with self._free:
            try:
                # A new session is an object, not a connection; it needs the running loop.
                async with self._opened().get(f"{sandbox_url}{PATH}", allow_redirects=False) as response:
                    return Reach.ANSWERS if response.status == HTTPStatus.OK else Reach.NOT_YET
            except aiohttp.ConnectionTimeoutError:
                return Reach.NOT_REACHED
            except (TimeoutError, aiohttp.ClientResponseError):
                return Reach.NOT_YET
            # Also one who closes the connection without a word: a forwarder of node ports does so.
            except (aiohttp.ClientError, OSError):
                return Reach.NOT_REACHED

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A node port, or an address, may be another sandbox's the next time.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._deadlines.url_answer, connect=self._deadlines.url_connect),
                trust_env=False,
            )
        return self._session
