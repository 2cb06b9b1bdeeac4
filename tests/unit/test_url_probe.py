"""The result of a URL probe, by the server's behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.service.url_probe import Reach, UrlProber

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\nSet-Cookie: a=b\r\n\r\n"

Serve = Callable[[bytes | None], Awaitable[str]]


@pytest.fixture
async def urls(deadlines: Deadlines) -> AsyncIterator[UrlProber]:
    urls = UrlProber(deadlines)
    yield urls
    await urls.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that starts a server whose every response is these bytes (None: never), and returns its URL."""
    async with AsyncExitStack() as stack:
        over = asyncio.Event()
        stack.callback(over.set)

        async def start(answer: bytes | None) -> str:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                request = await reader.readuntil(b"\r\n\r\n")
                assert request.startswith(b"GET /v1/sandbox HTTP/1.1\r\n")
                assert b"cookie" not in request.lower()
                if answer is None:
                    await over.wait()
                else:
                    writer.write(answer)
                writer.close()

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


async def test_a_200_is_an_answer_without_reading_its_body(urls: UrlProber, serve: Serve) -> None:
    url = await serve(OK)
    async with asyncio.timeout(1):
        assert await urls.ask(url) is Reach.ANSWERS
        assert await urls.ask(url) is Reach.ANSWERS


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ],
)
async def test_any_other_response_is_not_yet_an_answer(urls: UrlProber, serve: Serve, answer: bytes) -> None:
    assert await urls.ask(await serve(answer)) is Reach.NOT_YET


@pytest.mark.deadlines(url_answer=0.2)
async def test_a_server_that_does_not_respond_times_out_as_not_yet(urls: UrlProber, serve: Serve) -> None:
    url = await serve(None)
    async with asyncio.timeout(2):
        assert await urls.ask(url) is Reach.NOT_YET


async def test_a_refused_unresolved_or_closed_connection_is_not_reached(urls: UrlProber, serve: Serve) -> None:
    assert await urls.ask("http://127.0.0.1:1") is Reach.NOT_REACHED
    assert await urls.ask("http://no-such-name.invalid:80") is Reach.NOT_REACHED
    assert await urls.ask(await serve(b"")) is Reach.NOT_REACHED


async def test_proxies_of_the_environment_are_not_used(
    urls: UrlProber, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert await urls.ask(await serve(OK)) is Reach.ANSWERS
