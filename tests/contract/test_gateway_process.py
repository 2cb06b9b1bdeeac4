"""`provisioner.py gateway`: a process that serves nothing but the gateway, and any number of them."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from devcluster.authorization import rights_of
from sandboxes import objects as kube
from tests.audit import GATEWAY
from tests.contract.gateways import NOT_FOUND, NS, PODS_ANSWER, StartReplica, becomes, get, reached, url_of
from tests.contract.kubectls import new_kubectl
from tests.contract.processes import PROVISIONER, environment, free_port, run, running
from tests.contract.service import URL, until
from tests.deploy import all_objects, overlay_with

pytestmark = [PODS_ANSWER, pytest.mark.slow]

GATEWAYS = (*PROVISIONER, "gateway")


class Apart:
    """A gateway in a process of its own: `port`: of the gateway, `health`: of its health and metrics."""

    def __init__(self, log: Path) -> None:
        self.port, self.health = free_port(), free_port()
        self.log = log

    def at(self, url: str) -> str:
        """Return a sandbox's URL as it is at this gateway."""
        return f"http://127.0.0.1:{self.port}/s/{url.partition('/s/')[2]}"


StartApart = Callable[..., Awaitable[Apart]]


@pytest.fixture
async def start_apart(cluster: Cluster, tmp_path: Path, keys: Path) -> AsyncIterator[StartApart]:
    """Return a function that starts a gateway in a process of its own, with the keys of the service."""
    async with AsyncExitStack() as stack:
        numbers = iter(range(10))

        async def start(**variables: str) -> Apart:
            one = Apart(tmp_path / f"gateway-{next(numbers)}.log")
            environ = environment(
                tmp_path,
                **{
                    "KUBECONFIG_PATH": str(cluster.kubeconfig),
                    "SANDBOX_GATEWAY_DIAL": "pod-ip",
                    "SANDBOX_GATEWAY_KEYS_FILE": str(keys),
                    "SANDBOX_GATEWAY_PORT": str(one.port),
                    "LISTEN_HOST": "127.0.0.1",
                    "LISTEN_PORT": str(one.health),
                    "LOG_LEVEL": "DEBUG",
                    **variables,
                },
            )
            await stack.enter_async_context(running(*GATEWAYS, environ=environ, log=one.log))
            return one

        yield start


async def ready(session: aiohttp.ClientSession, one: Apart) -> None:
    """Wait until the gateway is ready."""

    async def is_ready() -> bool:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            return (await get(session, f"http://127.0.0.1:{one.health}/readyz"))[0] == 200
        return False

    await until(is_ready)


@pytest.mark.role(GATEWAY)
async def test_two_of_them_serve_every_url_with_rights_on_pods_alone(
    start_gateway: StartReplica,
    start_apart: StartApart,
    session: aiohttp.ClientSession,
) -> None:
    service = await start_gateway(SANDBOX_GATEWAY_SERVE="false", ALLOW_FIELDS="idle_timeout_seconds")
    url, other = await url_of(service, "a", idle_timeout_seconds=11), await url_of(service, "b")
    gateways = [await start_apart(), await start_apart()]
    for one in gateways:
        await ready(session, one)
        await reached(session, one.at(url))
    stream = await session.get(f"{gateways[0].at(url)}/stream")
    assert (await service.service.delete(f"{URL}/a/urls")).status == 200
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()
    for one in gateways:
        await becomes(session, one.at(url), 404)
        await reached(session, one.at(other))


async def test_it_asks_for_no_more_than_its_role(
    start_gateway: StartReplica,
    start_apart: StartApart,
    session: aiohttp.ClientSession,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    service = await start_gateway(
        SANDBOX_GATEWAY_SERVE="false", ALLOW_FIELDS="idle_timeout_seconds", REAPER_INTERVAL="0"
    )
    url = await url_of(service, "a", idle_timeout_seconds=11)
    await service.service.client.close()
    text = {"resources": ["../../base"], "components": ["../../components/gateway", f"../../{GATEWAY}"]}
    (role,) = [
        obj
        for obj in all_objects(new_kubectl(), overlay_with(tmp_path, text))
        if obj["kind"] == "Role" and obj["metadata"]["name"] == "sandbox-provisioner-gateway"
    ]
    cluster.authorization.restrict(NS, role["rules"])
    one = await start_apart()
    await ready(session, one)

    async def is_use_written() -> bool:
        await get(session, one.at(url))
        pod = cluster.get("Pod", NS, "sandbox-a")
        return pod is not None and kube.USED_ANNOTATION in kube.get_annotations(pod)

    await reached(session, one.at(url))
    await until(is_use_written)
    # It serves from its first list, before its watch has begun.
    await until(lambda: cluster.authorization.used == rights_of(role["rules"]))
    assert cluster.authorization.refused == set()


async def test_without_the_right_to_patch_it_serves_and_warns_once(
    start_gateway: StartReplica, start_apart: StartApart, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    service = await start_gateway(
        SANDBOX_GATEWAY_SERVE="false", ALLOW_FIELDS="idle_timeout_seconds", REAPER_INTERVAL="0"
    )
    url = await url_of(service, "a", idle_timeout_seconds=11)
    await service.service.client.close()
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    cluster.authorization.restrict(NS, rules)
    one = await start_apart()
    await ready(session, one)

    async def is_said() -> bool:
        assert (await get(session, one.at(url)))[0] in (200, 503)
        return "so uses do not put off the end of idle sandboxes" in one.log.read_text()

    await until(is_said)
    for _ in range(20):
        assert (await get(session, one.at(url)))[0] == 200
    assert one.log.read_text().count("so uses do not put off") == 1


async def test_it_has_health_and_metrics_on_the_other_port_and_no_api(
    start_apart: StartApart, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    cluster.make_namespace(NS)
    one = await start_apart()
    await ready(session, one)
    health = f"http://127.0.0.1:{one.health}"
    assert await get(session, f"{health}/livez") == (200, {"status": "ok"})
    assert await get(session, f"{health}/readyz") == (200, {"ready": True, "checks": {"default": "ok"}})
    assert await get(session, f"{health}/api/sandboxes") == (404, {"detail": "Not Found"})
    gateway = f"http://127.0.0.1:{one.port}"
    for path in ("/livez", "/readyz", "/metrics", "/s/a/b", "/"):
        assert await get(session, gateway + path) == NOT_FOUND
    async with session.get(f"{health}/metrics") as response:
        text = await response.text()
    assert 'provisioner_gateway_requests_total{kind="http",status="404"} 5.0' in text
    assert 'provisioner_gateway_failures_total{kind="not-found"} 5.0' in text


async def test_sigterm_ends_it_cleanly_with_open_connections(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster, tmp_path: Path, keys: Path
) -> None:
    service = await start_gateway(SANDBOX_GATEWAY_SERVE="false")
    url = await url_of(service)
    one = Apart(tmp_path / "log")
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        SANDBOX_GATEWAY_DIAL="pod-ip",
        SANDBOX_GATEWAY_KEYS_FILE=str(keys),
        SANDBOX_GATEWAY_PORT=str(one.port),
        LISTEN_HOST="127.0.0.1",
        LISTEN_PORT=str(one.health),
    )
    async with running(*GATEWAYS, environ=environ, log=one.log) as process:
        await ready(session, one)
        await reached(session, one.at(url))
        async with session.ws_connect(f"{one.at(url)}/socket") as websocket:
            await websocket.send_str("a")
            assert await websocket.receive_str() == "a"
            process.send_signal(signal.SIGTERM)
            assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert websocket.close_code == 1001
        assert await process.wait() == 0
    assert "Traceback" not in one.log.read_text()


async def test_a_start_without_keys_or_with_a_taken_port_is_refused_in_one_sentence(
    cluster: Cluster, tmp_path: Path, keys: Path
) -> None:
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), SANDBOX_GATEWAY_DIAL="pod-ip")
    code, _, stderr = await run(*GATEWAYS, environ=environ)
    assert code == 1
    assert stderr.splitlines()[-1].startswith("provisioner: SANDBOX_GATEWAY_KEYS_FILE is unset: ")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        more = {"SANDBOX_GATEWAY_KEYS_FILE": str(keys), "SANDBOX_GATEWAY_PORT": port, "LISTEN_PORT": str(free_port())}
        code, _, stderr = await run(*GATEWAYS, environ={**environ, **more})
    assert code == 1
    where = f"Can't listen on 127.0.0.1:{port}: it is taken. Set SANDBOX_GATEWAY_PORT to another."
    assert stderr.splitlines()[-1] == f"provisioner: {where}"
