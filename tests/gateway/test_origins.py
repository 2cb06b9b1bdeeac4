"""Sandboxes with an origin of their own: the cookie in place of the prefix, and pages of others that would use it."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import MakeWorld
from tests.gateway.world import Recorder, World, detail, headers_of

URL = "https://{sandbox_id}.gw.example:8443"
OWN = "abc.gw.example:8443"


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world(url=URL)


async def _cookie(world: World, prefix: str) -> str:
    _, answer = await world.get(f"{prefix}/", host=OWN)
    (cookie,) = headers_of(answer, "Set-Cookie")
    return cookie.split(b";")[0].decode()


async def test_a_request_by_the_prefix_leaves_a_cookie_for_this_host(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    _, answer = await world.get(f"{prefix}/", host=OWN)
    token = prefix.split("/")[3]
    expected = f"sandbox-gateway={token}; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert headers_of(answer, "Set-Cookie") == [expected.encode()]


async def test_no_cookie_is_left_on_a_host_that_all_share(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    for host in ("gw.example:8443", "127.0.0.1", "a.abc.gw.example", "abc.gw.example.evil"):
        _, answer = await world.get(f"{prefix}/", host=host)
        assert headers_of(answer, "Set-Cookie") == []


async def test_with_the_cookie_absolute_links_work_and_the_sandbox_never_sees_it(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    cookie = await _cookie(world, prefix)
    sandbox.heads.clear()
    status, answer = await world.get("/assets/app.js?v=1", f"Cookie: a=b; {cookie}; c=d\r\n", host=OWN.upper())
    assert status == 200
    assert sandbox.lines()[0] == b"GET /assets/app.js?v=1 HTTP/1.1"
    assert sandbox.values("Cookie") == [b"a=b; c=d"]
    assert sandbox.values("X-Forwarded-Prefix") == []
    assert headers_of(answer, "Set-Cookie") == []


async def test_a_cookie_header_with_the_gateways_cookie_alone_does_not_arrive(world: World) -> None:
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox)
    cookie = await _cookie(world, prefix)
    sandbox.heads.clear()
    for path, host in (("/", OWN), (f"{prefix}/", "other")):
        sandbox.heads.clear()
        await world.get(path, f"Cookie: {cookie}\r\n", host=host)
        assert sandbox.values("Cookie") == []


async def test_a_path_of_the_sandbox_that_begins_like_a_prefix_is_the_sandboxes(world: World) -> None:
    sandbox = Recorder()
    cookie = await _cookie(world, await world.sandbox(sandbox))
    sandbox.heads.clear()
    await world.get("/s/static/logo.png", f"Cookie: {cookie}\r\n", host=OWN)
    assert sandbox.lines()[0] == b"GET /s/static/logo.png HTTP/1.1"


@pytest.mark.parametrize("cookie", ["", "Cookie: sandbox-gateway=\r\n", f"Cookie: sandbox-gateway={'A' * 32}\r\n"])
async def test_without_a_valid_cookie_it_is_404(world: World, cookie: str) -> None:
    await world.sandbox(Recorder())
    status, answer = await world.get("/", cookie, host=OWN)
    assert (status, detail(answer)) == (404, "No sandbox has this URL")


async def test_an_id_in_the_host_and_another_in_the_path_is_404(world: World) -> None:
    abc = await world.sandbox(Recorder())
    other = await world.sandbox(Recorder(), "other", uid="u2")
    cookie = await _cookie(world, abc)
    for headers in ("", f"Cookie: {cookie}\r\n"):
        status, _ = await world.get(f"{other}/", headers, host=OWN)
        assert status == 404


async def test_a_cookie_of_one_sandbox_is_none_for_another(world: World) -> None:
    await world.sandbox(Recorder(), "other", uid="u2")
    cookie = await _cookie(world, await world.sandbox(Recorder()))
    status, _ = await world.get("/", f"Cookie: {cookie}\r\n", host="other.gw.example:8443")
    assert status == 404


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n"
)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", "Origin: https://evil.example\r\n", 403),
        ("POST", "Origin: null\r\n", 403),
        ("POST", "Origin: https://other.gw.example:8443\r\n", 403),
        ("DELETE", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("POST", "Sec-Fetch-Site: same-site\r\n", 403),
        ("POST", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403),
        ("GET", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
        ("GET", f"Origin: https://evil.example\r\n{UPGRADE}", 403),
        ("GET", f"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: websocket\r\n{UPGRADE}", 403),
        ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200),
        ("POST", f"Origin: https://{OWN}\r\nSec-Fetch-Site: same-origin\r\n", 200),
        ("POST", "Sec-Fetch-Site: none\r\n", 200),
        ("POST", "", 200),
        ("GET", "", 200),
    ],
)
async def test_another_origins_page_can_not_use_the_cookie(
    world: World, method: str, headers: str, status: int
) -> None:
    sandbox = Recorder()
    cookie = await _cookie(world, await world.sandbox(sandbox))
    sandbox.heads.clear()
    got, answer = await world.get("/", f"Cookie: {cookie}\r\n{headers}", method=method, host=OWN)
    assert got == status
    if status == 403:
        assert detail(answer) == "A page of another origin has sent this request"
        assert sandbox.heads == []


async def test_with_the_prefix_any_page_may_send_requests(world: World) -> None:
    prefix = await world.sandbox(Recorder())
    status, _ = await world.get(f"{prefix}/", "Origin: https://evil.example\r\n", method="POST", host=OWN)
    assert status == 200


async def test_a_referer_of_a_page_without_the_prefix_is_the_sandboxes(world: World) -> None:
    sandbox = Recorder()
    cookie = await _cookie(world, await world.sandbox(sandbox))
    sandbox.heads.clear()
    await world.get("/", f"Cookie: {cookie}\r\nReferer: https://{OWN}/page?q\r\n", host=OWN)
    port = world.pods.find("abc")[0].subject.port
    assert sandbox.values("Referer") == [f"http://localhost:{port}/page?q".encode()]


async def test_a_location_stays_as_it_is_where_no_prefix_is_needed(world: World) -> None:
    sandbox = Recorder()
    cookie = await _cookie(world, await world.sandbox(sandbox))
    port = world.pods.find("abc")[0].subject.port
    for sent, comes in (
        ("/a?b", b"/a?b"),
        (f"http://localhost:{port}/a", b"/a"),
        (f"http://localhost:{port}//e/a", b"/e/a"),
    ):
        sandbox.response = f"HTTP/1.1 302 Found\r\nLocation: {sent}\r\nContent-Length: 0\r\n\r\n".encode()
        _, answer = await world.get("/", f"Cookie: {cookie}\r\n", host=OWN)
        assert headers_of(answer, "Location") == [comes]
