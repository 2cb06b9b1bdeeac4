"""Injected failures of devcluster, as a real kubectl reports them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, pod
from tests.waiting import until

LIST = ("get", "pods", "-o", "json")
PODS = "/api/v1/namespaces/default/pods"
WATCH = ("get", "pods", "--watch", "--output-watch-events", "-o", "json")
PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}


async def fill_discovery_cache(kubectl: Kubectl) -> None:
    """Fill kubectl's discovery cache, so that each later call is one request."""
    assert (await kubectl(*LIST)).rc == 0


async def start_pod_watch(cluster: Cluster, kubectl: Kubectl) -> asyncio.subprocess.Process:
    before = sum(request.params.get("watch") == "true" for request in cluster.kmock.requests)
    watch = await kubectl.start(*WATCH)
    await until(lambda: sum(r.params.get("watch") == "true" for r in cluster.kmock.requests) > before)
    return watch


async def test_a_closed_port_refuses_connections_and_reopens_with_its_objects(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    await kubectl.apply(pod(**PARKED))
    cluster.faults.refuse()
    refused = await kubectl(*LIST)
    address = cluster.url.removeprefix("https://")
    assert refused.rc == 1
    assert f"The connection to the server {address} was refused" in refused.stderr
    cluster.faults.clear()
    assert len((await kubectl(*LIST)).json["items"]) == 1


async def test_kubectl_waits_for_a_hanging_server_and_retries_when_disconnected(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.hang()
    call = asyncio.create_task(kubectl(*LIST))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.shield(call)
    cluster.faults.clear()
    assert (await call).rc == 0


async def test_only_matching_requests_hang(cluster: Cluster, kubectl: Kubectl) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.hang(verb="patch", resource="services", times=1)
    assert (await kubectl.apply(pod(**PARKED))).rc == 0
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}
    call = asyncio.create_task(kubectl.apply(service))
    await until(lambda: any("/services/" in request.url.path for request in cluster.kmock.requests))
    assert (await kubectl(*LIST)).rc == 0
    assert not call.done()
    cluster.faults.clear()
    assert (await call).rc == 1
    assert cluster.objects("Service") == []


async def test_a_slow_server_delays_each_request(cluster: Cluster, kubectl: Kubectl) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.slow(0.5, verb="list")
    begun = time.monotonic()
    assert (await kubectl(*LIST)).rc == 0
    assert time.monotonic() - begun >= 0.5
    cluster.faults.slow(3600)
    cluster.faults.clear()
    assert (await kubectl(*LIST, seconds=5)).rc == 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (429, "Error from server (TooManyRequests): the server has received too many requests"),
        (500, "Error from server (InternalError): Internal error occurred: devcluster was told to fail"),
        (503, "Error from server (ServiceUnavailable): the server is currently unable to handle the request"),
    ],
)
async def test_kubectl_reports_an_error_without_retry_after_at_once(
    code: int, message: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.answer(code, resource="pods", times=1)
    refused = await kubectl(*LIST)
    assert refused.rc == 1
    assert refused.stderr.startswith(message)
    assert (await kubectl(*LIST)).rc == 0


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_kubectl_retries_an_error_with_retry_after(code: int, cluster: Cluster, kubectl: Kubectl) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.answer(code, retry_after=1, verb="patch", resource="pods", times=1)
    begun = time.monotonic()
    applied = await kubectl.apply(pod(**PARKED))
    assert applied.rc == 0, applied.stderr
    assert time.monotonic() - begun >= 1
    tries = [request for request in cluster.kmock.requests if request.method.value == "PATCH"]
    assert len(tries) == 2


async def test_faults_apply_in_the_order_in_which_they_were_added(cluster: Cluster, kubectl: Kubectl) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.answer(503, resource="pods", times=1)
    cluster.faults.answer(500, resource="pods", times=1)
    assert "ServiceUnavailable" in (await kubectl(*LIST)).stderr
    assert "InternalError" in (await kubectl(*LIST)).stderr
    assert (await kubectl(*LIST)).rc == 0


async def test_kubectl_prints_a_warning_and_succeeds(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.faults.warn("mind the gap", verb="patch", times=1)
    applied = await kubectl.apply(pod(**PARKED))
    assert (applied.rc, applied.stderr) == (0, "Warning: mind the gap\n")


@pytest.mark.parametrize("after_bytes", [0, 20])
async def test_a_request_is_processed_even_if_its_response_is_cut(
    after_bytes: int, cluster: Cluster, kubectl: Kubectl
) -> None:
    await fill_discovery_cache(kubectl)
    cluster.faults.cut(after_bytes, verb="patch", resource="pods", times=1)
    lost = await kubectl.apply(pod(**PARKED))
    assert lost.rc == 1
    assert "EOF" in lost.stderr
    assert cluster.get("Pod", "default", "x") is not None


async def test_a_cut_list_response_fails(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    cluster.faults.cut(200, verb="list", resource="pods", times=1)
    cut = await kubectl(*LIST)
    assert cut.rc == 1
    assert "unexpected EOF" in cut.stderr


@pytest.mark.parametrize("how", ["end", "cut", "cut in an event"])
async def test_a_kubectl_watch_exits_with_0_however_its_connection_ends(
    how: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    if how == "cut in an event":
        await fill_discovery_cache(kubectl)
        cluster.faults.cut(100, verb="watch", times=1)
    watch = await start_pod_watch(cluster, kubectl)
    await kubectl.apply(pod(**PARKED))
    if how == "end":
        cluster.end_watches()
    elif how == "cut":
        cluster.faults.cut_watches()
    async with asyncio.timeout(60):
        stdout, stderr = await watch.communicate()
    assert watch.returncode == 0
    if how == "cut in an event":
        assert stdout == b""
        assert b"Unable to decode an event" not in stdout
    else:
        assert json.loads(stdout.splitlines()[0])["type"] == "ADDED"
        assert stderr == b""


async def test_a_restart_ends_watches_and_keeps_objects_and_versions(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    version = (await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"]
    before = cluster.get("Pod", "default", "x")
    watch = await start_pod_watch(cluster, kubectl)
    restart = asyncio.create_task(cluster.faults.restart(1))
    async with asyncio.timeout(60):
        await watch.wait()
    assert watch.returncode == 0
    assert "was refused" in (await kubectl(*LIST)).stderr
    await restart
    assert cluster.get("Pod", "default", "x") == before
    assert (await kubectl.apply(pod("y", **PARKED))).rc == 0
    after = cluster.get("Pod", "default", "y")
    assert after is not None
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"] if before else 0)
    path = f"{PODS}?watch=true&timeoutSeconds=1&resourceVersion={version}"
    assert '"type":"ADDED"' in (await kubectl("get", "--raw", path)).stdout


async def test_old_versions_are_expired_after_a_restart_with_forget(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    version = (await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"]
    await kubectl.apply(pod("y", **PARKED))
    await cluster.faults.restart(0, forget=True)
    path = f"{PODS}?watch=true&resourceVersion={version}"
    event = json.loads((await kubectl("get", "--raw", path)).stdout)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_cluster_with_faults_still_stops(cluster: Cluster, kubectl: Kubectl) -> None:
    await fill_discovery_cache(kubectl)
    watch = await start_pod_watch(cluster, kubectl)
    cluster.faults.hang(resource="pods")
    hanging = await kubectl.start(*LIST)
    await until(lambda: cluster.kmock.requests[-1].params.get("limit") == "500")
    async with asyncio.timeout(60):
        await cluster.__aexit__(None, None, None)
    async with asyncio.timeout(60):
        await asyncio.gather(watch.communicate(), hanging.communicate())
    assert watch.returncode == 0
    assert hanging.returncode == 1


@pytest.mark.parametrize("turns", range(5))
async def test_refuse_closes_connections_that_are_being_accepted(cluster: Cluster, turns: int) -> None:
    # After this many turns of the loop the connection is not yet accepted, accepted, or about to start its TLS
    # handshake. A connection that stays open is a ResourceWarning, which fails this test.
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", urlsplit(cluster.url).port))
        connection.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        cluster.faults.refuse()
        try:
            received = await asyncio.wait_for(loop.sock_recv(connection, 1), 60)
        except ConnectionResetError:
            received = b""
    assert received == b""
