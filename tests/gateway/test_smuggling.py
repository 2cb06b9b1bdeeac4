"""One request of a caller is one request to the sandbox, however it is written: else it is refused."""

from __future__ import annotations

import pytest

from tests.gateway.world import Recorder, World, detail, until

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: \r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"X-A: a\r\n folded\r\n",
        b"X-A: a\nTransfer-Encoding: chunked\r\n",
        b"X-A: a\rTransfer-Encoding: chunked\r\n",
        b"X-A: a\x00b\r\n",
        b"X A: b\r\n",
        b": empty\r\n",
        b"no-colon\r\n",
        b"Host: b\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(world: World, headers: bytes) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    request = f"POST {prefix}/ HTTP/1.1\r\nHost: a\r\n".encode() + headers + b"\r\n0\r\n\r\n" + HIDDEN
    answer = await world.ask(request)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert detail(answer)
    assert sandbox.heads == []


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ],
)
async def test_what_is_not_http_is_400_in_json(world: World, request_: bytes) -> None:
    answer = await world.ask(request_)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert detail(answer).startswith("The request ")


async def test_a_body_is_never_taken_for_a_request(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    length = f"POST {prefix}/a HTTP/1.1\r\nHost: a\r\nContent-Length: {len(HIDDEN)}\r\n\r\n".encode() + HIDDEN
    chunks = (
        f"POST {prefix}/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cHuNkEd\r\n\r\n{len(HIDDEN):x}\r\n".encode()
        + HIDDEN
        + b"\r\n0\r\n\r\n"
    )
    last = f"GET {prefix}/c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    answers = await world.ask(length + chunks + last)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert [head.split(b" ")[1] for head in sandbox.heads] == [b"/a", b"/b", b"/c"]
    assert [HIDDEN in one for one in sandbox.bodies] == [True, True, False]


@pytest.mark.parametrize(
    "chunk",
    [b"2;ext\r\nhi\r\n", b"2 \r\nhi\r\n", b"0x2\r\nhi\r\n", b"2\nhi\n", b"-2\r\nhi\r\n", b"2\r\nhi!\r\n", b"\r\n"],
)
async def test_a_sandbox_never_sees_a_callers_own_framing(world: World, chunk: bytes) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    head = f"POST {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = await world.ask(head + chunk + b"0\r\n\r\n" + HIDDEN)
    await until(lambda: not world.counts.open)
    if answer.startswith(b"HTTP/1.1 200"):
        assert sandbox.bodies == [b"2\r\nhi\r\n0\r\n\r\n"]
    else:
        assert answer.startswith(b"HTTP/1.1 400")
        assert sandbox.bodies == []
    assert len(sandbox.heads) <= 1


async def test_a_get_with_a_body_keeps_it(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    await world.ask(
        f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(HIDDEN)}\r\n\r\n".encode()
        + HIDDEN
    )
    assert sandbox.bodies == [HIDDEN]


@pytest.mark.parametrize("protocol", ["h2c", "tcp", "websocket, h2c", "TLS/1.2"])
async def test_an_upgrade_to_anything_else_is_a_plain_request(world: World, protocol: str) -> None:
    """What follows it is not served: it may be bytes of another protocol."""
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    upgrade = f"GET {prefix}/a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    answers = await world.ask((upgrade + f"GET {prefix}/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").encode())
    assert answers.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in answers
    assert b"Upgrade" not in sandbox.head
