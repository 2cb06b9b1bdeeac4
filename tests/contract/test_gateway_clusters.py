"""The gateway with several clusters: tokens name the cluster, and a cluster that is away stops no other."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.api.app_keys import CLUSTER_UNITS
from sandboxes.app import compose_gateway
from sandboxes.deadlines import Deadlines
from sandboxes.settings import Settings
from tests.audit import CLUSTERS
from tests.contract.fleet import FIELDS, NS, write
from tests.contract.gateways import (
    NOT_FOUND,
    Replica,
    StartReplica,
    becomes,
    cluster,
    get,
    keys,
    reached,
    sandbox_server,
    session,
    start_gateway,
)
from tests.contract.processes import free_port
from tests.contract.service import URL, create, until

__all__ = ["cluster", "keys", "session", "start_gateway"]

pytestmark = [pytest.mark.slow, pytest.mark.role(CLUSTERS)]


@pytest.fixture
async def west(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a second cluster whose Pods answer."""
    async with Cluster(directory=tmp_path / "west", pod_servers=True) as west:
        west.make_namespace(NS)
        west.pods_answer_by(sandbox_server)
        yield west


@pytest.fixture
async def path(tmp_path: Path, cluster: Cluster, west: Cluster) -> Path:
    """Return a file with both clusters."""
    cluster.make_namespace(NS)
    return write(tmp_path / "clusters.yaml", {"east": cluster, "west": west})


async def url_on(replica: Replica, name: str, sandbox_id: str) -> str:
    return str((await create(replica.service, sandbox_id, cluster=name))["sandbox_url"])


async def start(start_gateway: StartReplica, path: Path, **variables: str) -> Replica:
    return await start_gateway(CLUSTERS_FILE=str(path), ALLOW_FIELDS=FIELDS, **variables)


async def test_sandboxes_of_every_cluster_are_reached_and_a_token_names_the_cluster(
    start_gateway: StartReplica, session: aiohttp.ClientSession, path: Path, cluster: Cluster, west: Cluster
) -> None:
    replica = await start(start_gateway, path)
    east_url, west_url = await url_on(replica, "east", "a"), await url_on(replica, "west", "b")
    for url, one, sandbox_id in ((east_url, cluster, "a"), (west_url, west, "b")):
        answer = await reached(session, url)
        pod = one.get("Pod", NS, kube.pod_name(sandbox_id))
        assert pod is not None
        assert answer["host"] == pod["status"]["podIP"]
    swapped = write(path.with_name("swapped.yaml"), {"west": cluster, "east": west})
    other = await start(start_gateway, swapped)
    await becomes(session, other.at(east_url), 404)
    assert await get(session, other.at(west_url)) == NOT_FOUND


async def test_a_cluster_that_is_away_from_the_start_stops_no_other(
    start_gateway: StartReplica, session: aiohttp.ClientSession, path: Path, west: Cluster
) -> None:
    url = await url_on(await start(start_gateway, path), "east", "a")
    west.faults.refuse()
    replica = await start(start_gateway, path)
    await reached(session, replica.at(url))
    status, answer = await get(session, replica.at("x/s/never/" + "A" * 32))
    assert (status, answer["detail"]) == (
        503, "The gateway does not know the sandboxes: its view of the cluster is not up to date",
    )  # fmt: skip
    west.faults.clear()
    await becomes(session, replica.at("x/s/never/" + "A" * 32), 404)


async def test_a_cluster_that_joins_is_served_and_the_connections_of_one_that_leaves_end(
    start_gateway: StartReplica, session: aiohttp.ClientSession, path: Path, cluster: Cluster, west: Cluster
) -> None:
    write(path, {"east": cluster})
    replica = await start(start_gateway, path)
    write(path, {"east": cluster, "west": west})
    units = replica.service.client.app[CLUSTER_UNITS]
    await units.follow_once()

    async def is_made() -> bool:
        response = await replica.service.post(URL, json={"sandbox_id": "b", "cluster": "west"})
        return response.status == 200

    await until(is_made)  # it gets sandboxes once the notes in all clusters name it
    url = await url_on(replica, "west", "b")
    await reached(session, url)
    stream = await session.get(f"{url}/stream")
    await stream.content.readline()
    write(path, {"east": cluster, "west": west}, west={"lost": True})
    await units.follow_once()
    assert (await get(session, url))[0] == 200
    write(path, {"east": cluster})
    await units.follow_once()
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()
    assert await get(session, url) == NOT_FOUND


@pytest.fixture
async def without_way(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return addresses to which this process's network is to have no way: machines differ in those that have none."""
    hosts: set[str] = set()
    loop_class = type(asyncio.get_running_loop())
    connect = loop_class.sock_connect

    async def sock_connect(self: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] in hosts:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        await connect(self, sock, address)

    monkeypatch.setattr(loop_class, "sock_connect", sock_connect)
    return hosts


async def test_the_list_of_clusters_names_the_access_and_pods_that_can_not_be_dialled(
    start_gateway: StartReplica,
    session: aiohttp.ClientSession,
    path: Path,
    cluster: Cluster,
    west: Cluster,
    without_way: set[str],
) -> None:
    write(path, {"east": cluster, "west": west}, west={"access": "node-port"})
    replica = await start(start_gateway, path)

    async def listed() -> dict[str, tuple[str, str, str | None]]:
        answer = await (await replica.service.get("/api/clusters")).json()
        return {one["name"]: (one["access"], one["state"], one["last_error"]) for one in answer["clusters"]}

    async def is_so(expected: dict[str, tuple[str, str, str | None]]) -> bool:
        return await listed() == expected

    fine = ("node-port", "ready", None)
    await until(lambda: is_so({"east": ("gateway", "ready", None), "west": fine}))
    url = await url_on(replica, "east", "a")
    await reached(session, url)
    without_way.add("10.255.255.1")
    cluster.set_pod_address(NS, "sandbox-a", "10.255.255.1")
    await becomes(session, url, 502)
    sentence = "The gateway can't reach the Pods of the cluster: the last address that it dialled leads nowhere"
    await until(lambda: is_so({"east": ("gateway", "degraded", sentence), "west": fine}))


async def test_urls_are_made_and_made_invalid_on_whichever_cluster_the_sandbox_is(
    start_gateway: StartReplica, session: aiohttp.ClientSession, path: Path
) -> None:
    replica = await start(start_gateway, path)
    url = await url_on(replica, "west", "b")
    await reached(session, url)
    made = await (await replica.service.post(f"{URL}/b/urls", json={"port": 8080, "ttl_seconds": 60})).json()
    assert (await reached(session, made["url"]))["port"] == 8080
    answer = await (await replica.service.delete(f"{URL}/b/urls")).json()
    assert [await get(session, one) for one in (url, made["url"])] == [NOT_FOUND] * 2
    assert (await get(session, answer["sandbox_url"]))[0] == 200
    assert (await replica.service.post(f"{URL}/never/urls")).status == 404


async def test_a_gateway_of_its_own_follows_the_list_as_the_service_does(
    start_gateway: StartReplica,
    session: aiohttp.ClientSession,
    path: Path,
    cluster: Cluster,
    west: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deadlines: Deadlines,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    service = await start(start_gateway, path, SANDBOX_GATEWAY_SERVE="false")
    urls = [await url_on(service, "east", "a"), await url_on(service, "west", "b")]
    port = free_port()
    monkeypatch.setenv("SANDBOX_GATEWAY_PORT", str(port))
    (tmp_path / "apart").mkdir()
    fast = dataclasses.replace(deadlines, clusters_poll=0.05, clusters_retry=0.1)
    app = await compose_gateway(Settings.load(), tmp_path / "apart", in_pod=False, deadlines=fast)
    async with TestClient(TestServer(app)) as health:
        for url in urls:
            await reached(session, Replica(service.service, port).at(url))
        last = Replica(service.service, port).at(urls[1])
        assert (await (await health.get("/readyz")).json())["checks"] == {"east": "ok", "west": "ok"}
        write(path, {"east": cluster})  # refused: it has a sandbox
        await until(lambda: "Its previous content stays in force." in caplog.text)
        assert (await get(session, last))[0] == 200
        write(path, {"east": cluster, "west": west}, west={"lost": True})
        await until(lambda: "a new version of CLUSTERS_FILE is in force" in caplog.text)
        write(path, {"east": cluster})
        await becomes(session, last, 404)
        assert (await (await health.get("/readyz")).json())["checks"] == {"east": "ok"}
