"""The gateway while the API server is away: open connections and new requests go on."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from devcluster import Cluster
from tests.contract.gateways import NOT_FOUND, PODS_ANSWER, StartReplica, get, reached, url_of
from tests.contract.service import URL, until

pytestmark = [PODS_ANSWER, pytest.mark.slow]


@pytest.mark.slow
async def test_no_request_fails_while_the_api_server_is_away_for_a_while(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway()
    urls = [await url_of(replica, one) for one in ("a", "b", "c")]
    for url in urls:
        await reached(session, url)
    stop = asyncio.Event()
    statuses: list[int] = []

    async def call(url: str) -> None:
        while not stop.is_set():
            statuses.append((await get(session, url))[0])
            await asyncio.sleep(0.01)

    async def read(url: str) -> int:
        lines = 0
        async with session.get(f"{url}/stream") as response:
            while not stop.is_set():
                assert await response.content.readline() == b"line\n"
                lines += 1
        return lines

    async def echo(url: str) -> int:
        times = 0
        async with session.ws_connect(f"{url}/socket") as socket:
            while not stop.is_set():
                await socket.send_str("x")
                assert await socket.receive_str(timeout=60) == "x"
                times += 1
                await asyncio.sleep(0.01)
        return times

    callers = [asyncio.create_task(call(url)) for url in urls]
    streams = [asyncio.create_task(one(urls[0])) for one in (read, echo)]
    view = replica.service.view
    await until(lambda: len(statuses) > 30)
    cluster.faults.refuse()
    await until(lambda: not view.pods_are_current)
    away_at = len(statuses)
    await until(lambda: len(statuses) > away_at + 100)
    assert not view.pods_are_current
    assert (await replica.service.get(f"{URL}/never")).status >= 500, "the API itself can't answer"
    assert (await get(session, replica.at("x/s/never/" + "A" * 32))) == NOT_FOUND
    cluster.faults.clear()
    await until(lambda: view.pods_are_current)
    back_at = len(statuses)
    await until(lambda: len(statuses) > back_at + 30)
    stop.set()
    await asyncio.gather(*callers)
    moved = await asyncio.gather(*streams)
    assert set(statuses) == {200}
    assert all(one > 10 for one in moved)


@pytest.mark.slow
async def test_past_the_limit_nothing_that_is_known_is_dialled_and_it_comes_back(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway(SANDBOX_GATEWAY_MAX_STALE="10")
    url = await url_of(replica)
    await reached(session, url)
    cluster.faults.refuse()

    async def is_refused() -> bool:
        status, body = await get(session, url)
        assert status in (200, 503)
        return status == 503 and "not up to date" in body["detail"]

    await until(is_refused)
    cluster.faults.clear()
    await reached(session, url)
