"""Requests that no ordinary client sends."""

from __future__ import annotations

import pytest

from tests.gateway.test_websocket_frames import HANDSHAKE
from tests.gateway.world import Recorder, World, detail


@pytest.mark.parametrize(
    ("header", "sent", "arrives"),
    [
        ("Content-Length: 3", b"abc", b"abc"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_a_handshake_with_a_body_is_a_plain_request(
    world: World, header: str, sent: bytes, arrives: bytes
) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    answer = await world.ask(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}{header}\r\n\r\n".encode() + sent)
    assert answer.endswith(b"\r\n\r\nok")
    assert sandbox.bodies == [arrives]
    assert b"Upgrade" not in sandbox.head


@pytest.mark.parametrize(
    "target",
    [
        "/s/%61bc/{token}/",
        "/%73/abc/{token}/",
        "/S/abc/{token}/",
        "/./s/abc/{token}/",
        "/x/../s/abc/{token}/",
        "//s/abc/{token}/",
        "/s//abc/{token}/",
        "/s/abc;x/{token}/",
        "/s/abc/{token};x/",
        "/s/abc/{token}%2F",
        "/s/abc%2F{token}/",
        "/s/abc/{token}=",
        "/s/abc/.{token}",
        "/s/abc/0..{token}/",
        "/s/abc/65536..{token}/",
        "/s/abc/" + "9" * 5000 + "..{token}/",
        "/s/abc/.99999999999.{token}/",
        "/s/abc/" + "A" * 32 + "/",
        "http://gw?{path}",
        "ftp://gw{path}",
    ],
)
async def test_a_token_has_one_form_and_one_place(world: World, target: str) -> None:
    sandbox = Recorder()
    path = await world.sandbox(sandbox)
    status, answer = await world.get(target.format(token=path.rpartition("/")[2], path=path))
    assert (status, detail(answer)) == (404, "No sandbox has this URL")
    assert sandbox.heads == []
