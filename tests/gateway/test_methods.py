"""Which methods reach a sandbox, and what the others are answered."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser

from sandboxes.gateway.methods import METHODS
from tests.gateway.world import Recorder, World, detail

# IANA's registry of methods, but for `*` and PRI, which no request may have.
_REGISTRY = (
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY REBIND "
    "REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
)
REGISTERED = frozenset(_REGISTRY.split())
# Of UPnP, of caches, of Icecast.
OTHERS = frozenset({"M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE", "SOURCE", "FLUSH"})
DETAIL = "The gateway does not know the request's method"


async def _is_parsed(method: str) -> bool:
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    try:
        parser.feed_data(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    except HttpProcessingError:
        return False
    return True


async def test_the_table_has_each_method_that_the_parser_knows() -> None:
    known = {method for method in REGISTERED | OTHERS | METHODS if await _is_parsed(method)}
    assert known == METHODS | {"CONNECT"}


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_each_method_of_the_table_reaches_the_sandbox(world: World, method: str) -> None:
    sandbox = Recorder(b"HTTP/1.1 204 No Content\r\n\r\n")
    prefix = await world.sandbox(sandbox)
    assert (await world.get(f"{prefix}/", method=method))[0] == 204
    assert sandbox.lines()[0] == f"{method} / HTTP/1.1".encode()


@pytest.mark.parametrize(
    "method", [*sorted(REGISTERED - METHODS - {"CONNECT"}), "FOO", "get", "GETX", "DESCRIBE", "a'b"]
)
async def test_a_method_that_the_gateway_does_not_know_is_501_in_json(world: World, method: str) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, answer = await world.get(f"{prefix}/", method=method)
    assert (status, detail(answer)) == (501, DETAIL)
    assert sandbox.heads == []


async def test_an_unknown_method_after_another_request_is_501_too(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    await wire.exactly(2)
    await wire.send(f"FOO {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert detail(answer) == DETAIL
