"""Who may reach a sandbox, and for how long; and that a token is in no answer and no line of the log."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from sandboxes.access import tokens
from tests.gateway.conftest import MakeWorld
from tests.gateway.world import PATIENCE, Recorder, Wire, World, body, detail, headers_of, ready_pod, until

DETAIL = "No sandbox has this URL"


async def _streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await reader.read()


async def _stream(world: World, prefix: str) -> Wire:
    """Return a connection on which a response has begun."""
    wire = await world.connect()
    await wire.send(f"GET {prefix}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await wire.head()
    return wire


async def test_a_wrong_token_and_an_unknown_id_are_the_same_404(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    token = prefix.split("/")[3]
    wrong = ("B" if token[0] == "A" else "A") + token[1:]
    paths = [
        f"/s/abc/{wrong}/", f"/s/unknown/{token}/", f"/s/abc/{token[:-1]}/", "/s/abc//", "/s/abc", "/", "/other",
        f"/s/abc/{token}%2F", f"/s/ABC/{token}/", f"/s/abc/3000..{token}/", f"//s/abc/{token}/", f"/S/abc/{token}/",
    ]  # fmt: skip
    answers = {(await world.get(path))[1] for path in paths}
    assert len(answers) == 1
    (answer,) = answers
    assert (answer[:12], detail(answer)) == (b"HTTP/1.1 404", DETAIL)


async def test_an_unknown_id_takes_a_comparison_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    really = tokens.check

    def check(token: str, *rest: object) -> object:
        checked.append(token)
        return really(token, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tokens, "check", check)
    await world.sandbox(Recorder())
    await world.get(f"/s/abc/{'A' * 32}/")
    await world.get(f"/s/unknown/{'A' * 32}/")
    assert checked == ["A" * 32] * 2


async def test_while_a_view_is_not_usable_an_unknown_url_is_503_and_a_known_one_is_served(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    world.pods.is_usable = False
    for path in ("/s/unknown/x/", f"{prefix[:-1]}/", "/"):
        status, answer = await world.get(path)
        assert (status, headers_of(answer, "Retry-After")) == (503, [b"1"])
        assert "view" in detail(answer)
    assert (await world.get(f"{prefix}/"))[0] == 200


async def test_a_token_of_any_key_is_accepted(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    world.keys.keys.insert(0, b"n" * 32)
    assert (await world.get(f"{prefix}/"))[0] == 200
    world.keys.keys.pop()
    assert (await world.get(f"{prefix}/"))[0] == 404


async def test_a_token_that_is_over_is_404(world: World) -> None:
    await world.sandbox(Recorder())
    candidate = world.pods.find("abc")[0]
    assert (await world.get(world.prefix(candidate, expires_at=int(time.time()) + 60) + "/"))[0] == 200
    assert (await world.get(world.prefix(candidate, expires_at=int(time.time()) - 1) + "/"))[0] == 404


async def test_two_sandboxes_of_one_id_on_two_clusters_have_urls_of_their_own(world: World) -> None:
    prefixes = []
    for cluster in ("one", "two"):
        port = await world.serve(Recorder(f"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{cluster}".encode()))
        one = world.pods.put("abc", ready_pod("127.0.0.1"), port, uid=cluster, cluster=cluster)
        prefixes.append(world.prefix(one))
    assert [body((await world.get(f"{prefix}/"))[1]) for prefix in prefixes] == [b"one", b"two"]


def _gone(world: World) -> None:
    world.pods.remove("abc")


def _another_uid(world: World) -> None:
    one = world.pods.find("abc")[0]
    world.pods.put("abc", ready_pod("127.0.0.1"), one.subject.port, uid="another")


def _another_generation(world: World) -> None:
    one = world.pods.find("abc")[0]
    world.pods.put("abc", ready_pod("127.0.0.1"), one.subject.port, generation="2")


def _key_rotated_away(world: World) -> None:
    world.keys.keys = [b"n" * 32]
    world.pods.changed.send("abc")


def _ended(world: World) -> None:
    one = world.pods.find("abc")[0]
    pod = ready_pod("127.0.0.1")
    pod["status"]["phase"] = "Failed"
    world.pods.put("abc", pod, one.subject.port)


@pytest.mark.parametrize("change", [_gone, _another_uid, _another_generation, _key_rotated_away, _ended])
async def test_the_end_of_a_token_or_sandbox_ends_what_is_open(world: World, change: object) -> None:
    assert callable(change)
    prefix = await world.sandbox(_streaming)
    wire = await _stream(world, prefix)
    change(world)
    assert await wire.is_cut()
    await until(lambda: not world.counts.open)


async def test_the_expiry_of_a_token_ends_what_is_open(world: World) -> None:
    await world.sandbox(_streaming)
    wire = await _stream(world, world.prefix(world.pods.find("abc")[0], expires_at=int(time.time()) + 2))
    assert await wire.is_cut()


async def test_a_change_that_ends_nothing_leaves_what_is_open(world: World) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalf"[:-2])
        await gate.wait()
        writer.write(b"lf")

    prefix = await world.sandbox(slow)
    wire = await _stream(world, prefix)
    await world.sandbox(Recorder(), "other")
    world.pods.put("abc", ready_pod("127.0.0.1"), world.pods.find("abc")[0].subject.port)
    world.pods.remove("other")
    gate.set()
    assert await wire.exactly(4) == b"half"


async def test_a_request_without_a_response_gets_404_when_its_sandbox_ends(world: World) -> None:
    has_request = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        has_request.set()
        await reader.read()

    prefix = await world.sandbox(silent)
    asking = asyncio.create_task(world.get(f"{prefix}/"))
    await asyncio.wait_for(has_request.wait(), PATIENCE)
    world.pods.remove("abc")
    status, answer = await asking
    assert (status, detail(answer)) == (404, DETAIL)


async def test_no_line_of_the_log_and_no_answer_has_the_token_or_the_query(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = await make_world(url="http://{sandbox_id}.gw.example", wait=0.0)
    prefix = await world.sandbox(Recorder())
    token = prefix.split("/")[3]
    own = {"host": "abc.gw.example"}
    cookie = f"Cookie: sandbox-gateway={token}\r\n"
    answers = [
        (await world.get(f"{prefix}/visible?q=hidden-query"))[1],
        (await world.get("/visible?q=hidden-query", cookie, **own))[1],
        (await world.get(f"{prefix}/visible", "bad header\r\n"))[1],
        (await world.get(f"{prefix}/\x01"))[1],
        (await world.get(f"{prefix}/", "Content-Length: x\r\n"))[1],
        (await world.get(f"{prefix}/", "Transfer-Encoding: gzip\r\n"))[1],
        (await world.get(f"{prefix}/", method="NOT-A-METHOD"))[1],
        (await world.get(f"/s/unknown/{token}/x"))[1],
        (await world.get("/", f"{cookie}Origin: http://e\r\n", method="POST", **own))[1],
    ]  # fmt: skip
    world.pods.put("abc", ready_pod("127.0.0.1"), 1)
    refused = world.prefix(world.pods.find("abc")[0])
    answers.append((await world.get(f"{refused}/x"))[1])
    text = "\n".join([*caplog.messages, *(str(record.exc_info) for record in caplog.records if record.exc_info)])
    assert "/visible" in text
    for secret in (token, refused.split("/")[3], "hidden-query"):
        assert secret not in text
        assert not any(secret.encode() in answer for answer in answers)
