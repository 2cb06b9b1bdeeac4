"""Requests arrive as they were sent, but for the rules about their headers."""

from __future__ import annotations

from tests.gateway.world import Recorder, World, body


async def test_a_request_reaches_the_sandbox_and_its_response_the_caller(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    status, answer = await world.get(f"{prefix}/v1/sandbox?a=b")
    assert (status, body(answer)) == (200, b"ok")
    assert sandbox.lines()[0] == b"GET /v1/sandbox?a=b HTTP/1.1"
