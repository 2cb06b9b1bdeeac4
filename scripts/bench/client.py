"""A plain asynchronous HTTP client with kept-alive connections, its answers, and what can be wrong with them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

# A caller gives a create 30 s, and everything else less (README.md, Errors).
REQUEST_SECONDS = 30.0

# Longer than any phase leaves a connection alone, and shorter than a server does (aiohttp: 75 s).
KEEP_ALIVE_SECONDS = 60.0

_SHOWN = 200

# An API server's: 201 for what an apply made, 202 for a delete that takes its time.
_SUCCESSES = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})

# What a request can fail with before there is an answer.
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


M = TypeVar("M", bound=BaseModel)


class BenchError(Exception):
    """The run can't begin, or can't go on; its text is one sentence for a person."""


class WrongAnswer(Exception):
    """An answer that is not what it should be; its text says what was asked, and what came."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and what each carries. `repr` shows no header: one of them is a credential."""

    base: str
    headers: Mapping[str, str]
    context: ssl.SSLContext | None = None
    server_hostname: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.base})"


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end, and how long that took in seconds."""

    asked: str
    status: int
    body: bytes
    seconds: float

    def json(self) -> dict[str, Any]:
        """Return the body of a success; raises WrongAnswer for another status, or what is no JSON object."""
        if self.status not in _SUCCESSES:
            raise self.wrong()
        try:
            body = json.loads(self.body)
        except ValueError as error:
            raise self.wrong() from error
        if not isinstance(body, dict):
            raise self.wrong()
        return body

    def read_as(self, model: type[M]) -> M:
        """Return the body of a 200; raises WrongAnswer for another status, or what the model doesn't take."""
        if self.status != HTTPStatus.OK:
            raise self.wrong()
        try:
            return model.model_validate_json(self.body)
        except ValidationError as error:
            raise self.wrong() from error

    def wrong(self) -> WrongAnswer:
        """Return what says that this is not the answer that it should be."""
        text = self.body[:_SHOWN].decode(errors="replace")
        return WrongAnswer(f"{self.asked} answered {self.status} {text}")


class Client:
    """Requests to one endpoint. As many connections as there are requests at once; no proxy, no redirect."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __aenter__(self) -> Self:
        # Uncompressed: what is compared is the work of the servers, not of zlib.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **self._endpoint.headers},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: bytes | None = None, media_type: str | None = None) -> Answer:
        """Send one request and read its answer; raises one of NO_ANSWER if there is none within REQUEST_SECONDS."""
        url = self._endpoint.base + path
        headers = {"Content-Type": media_type} if media_type else {}
        started = perf_counter()
        async with self._session.request(
            method,
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            ssl=self._endpoint.context or True,
            server_hostname=self._endpoint.server_hostname,
        ) as response:
            content = await response.read()
        return Answer(f"{method} {path.partition('?')[0]}", response.status, content, perf_counter() - started)

    async def open_connections(self, count: int, path: str) -> None:
        """Have so many connections open: what is timed after this pays for no handshake."""
        await asyncio.gather(*(self.send("GET", path) for _ in range(count)), return_exceptions=True)


def is_loopback(host: str | None) -> bool:
    """Whether a host, as a URL has it, is this machine; a name that would have to be looked up is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
