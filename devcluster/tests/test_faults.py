"""What can go wrong with devcluster, put on by a test, as a real kubectl notices it."""

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


async def warmed(kubectl: Kubectl) -> None:
    """Have discovery in kubectl's cache, so that what follows is one request."""
    assert (await kubectl(*LIST)).rc == 0


async def watching(cluster: Cluster, kubectl: Kubectl) -> asyncio.subprocess.Process:
    before = sum(request.params.get("watch") == "true" for request in cluster.kmock.requests)
    watch = await kubectl.start(*WATCH)
    await until(lambda: sum(r.params.get("watch") == "true" for r in cluster.kmock.requests) > before)
    return watch


async def test_a_closed_port_refuses_and_opens_again_as_the_same(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    cluster.faults.refuse()
    refused = await kubectl(*LIST)
    address = cluster.url.removeprefix("https://")
    assert refused.rc == 1
    assert f"The connection to the server {address} was refused" in refused.stderr
    cluster.faults.clear()
    assert len((await kubectl(*LIST)).json["items"]) == 1


async def test_a_server_that_hangs_is_waited_for_and_asked_again_when_it_drops_us(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    await warmed(kubectl)
    cluster.faults.hang()
    call = asyncio.create_task(kubectl(*LIST))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.shield(call)
    cluster.faults.clear()
    assert (await call).rc == 0


async def test_only_the_requests_that_are_named_hang(cluster: Cluster, kubectl: Kubectl) -> None:
    await warmed(kubectl)
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


async def test_a_slow_server_takes_its_time_for_each_request(cluster: Cluster, kubectl: Kubectl) -> None:
    await warmed(kubectl)
    cluster.faults.slow(0.5, verb="list")
    begun = time.monotonic()
    assert (await kubectl(*LIST)).rc == 0
    assert time.monotonic() - begun >= 0.5
    cluster.faults.slow(3600)
    cluster.faults.clear()
    assert (await kubectl(*LIST, seconds=5)).rc == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (429, "Error from server (TooManyRequests): the server has received too many requests"),
        (500, "Error from server (InternalError): Internal error occurred: devcluster was told to fail"),
        (503, "Error from server (ServiceUnavailable): the server is currently unable to handle the request"),
    ],
)
async def test_an_answer_without_retry_after_is_said_at_once(
    code: int, said: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    await warmed(kubectl)
    cluster.faults.answer(code, resource="pods", times=1)
    refused = await kubectl(*LIST)
    assert refused.rc == 1
    assert refused.stderr.startswith(said)
    assert (await kubectl(*LIST)).rc == 0


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_an_answer_with_retry_after_is_asked_again_by_kubectl_itself(
    code: int, cluster: Cluster, kubectl: Kubectl
) -> None:
    await warmed(kubectl)
    cluster.faults.answer(code, retry_after=1, verb="patch", resource="pods", times=1)
    begun = time.monotonic()
    applied = await kubectl.apply(pod(**PARKED))
    assert applied.rc == 0, applied.stderr
    assert time.monotonic() - begun >= 1
    tries = [request for request in cluster.kmock.requests if request.method.value == "PATCH"]
    assert len(tries) == 2


async def test_of_two_faults_the_first_comes_first(cluster: Cluster, kubectl: Kubectl) -> None:
    await warmed(kubectl)
    cluster.faults.answer(503, resource="pods", times=1)
    cluster.faults.answer(500, resource="pods", times=1)
    assert "ServiceUnavailable" in (await kubectl(*LIST)).stderr
    assert "InternalError" in (await kubectl(*LIST)).stderr
    assert (await kubectl(*LIST)).rc == 0


async def test_a_warning_is_printed_and_all_is_well(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.faults.warn("mind the gap", verb="patch", times=1)
    applied = await kubectl.apply(pod(**PARKED))
    assert (applied.rc, applied.stderr) == (0, "Warning: mind the gap\n")


@pytest.mark.parametrize("after_bytes", [0, 20])
async def test_an_answer_that_is_cut_is_lost_but_what_was_asked_is_done(
    after_bytes: int, cluster: Cluster, kubectl: Kubectl
) -> None:
    await warmed(kubectl)
    cluster.faults.cut(after_bytes, verb="patch", resource="pods", times=1)
    lost = await kubectl.apply(pod(**PARKED))
    assert lost.rc == 1
    assert "EOF" in lost.stderr
    assert cluster.get("Pod", "default", "x") is not None


async def test_a_list_that_is_cut_is_no_list(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    cluster.faults.cut(200, verb="list", resource="pods", times=1)
    cut = await kubectl(*LIST)
    assert cut.rc == 1
    assert "unexpected EOF" in cut.stderr


@pytest.mark.parametrize("how", ["end", "cut", "cut in an event"])
async def test_a_watch_that_ends_ends_without_a_word_however_it_ends(
    how: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    if how == "cut in an event":
        await warmed(kubectl)
        cluster.faults.cut(100, verb="watch", times=1)
    watch = await watching(cluster, kubectl)
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


async def test_a_restart_ends_everything_and_loses_nothing(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    version = (await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"]
    before = cluster.get("Pod", "default", "x")
    watch = await watching(cluster, kubectl)
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


async def test_after_a_restart_that_forgets_old_versions_are_too_old(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    version = (await kubectl("get", "--raw", PODS)).json["metadata"]["resourceVersion"]
    await kubectl.apply(pod("y", **PARKED))
    await cluster.faults.restart(0, forget=True)
    path = f"{PODS}?watch=true&resourceVersion={version}"
    event = json.loads((await kubectl("get", "--raw", path)).stdout)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_cluster_with_faults_still_stops(cluster: Cluster, kubectl: Kubectl) -> None:
    await warmed(kubectl)
    watch = await watching(cluster, kubectl)
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
async def test_a_connection_that_was_only_just_taken_is_closed_with_the_port(cluster: Cluster, turns: int) -> None:
    # After so many turns of the loop it is not yet accepted, accepted, or about to be greeted. One that is forgotten
    # is a ResourceWarning, which fails this test.
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", urlsplit(cluster.url).port))
        connection.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        cluster.faults.refuse()
        try:
            said = await asyncio.wait_for(loop.sock_recv(connection, 1), 60)
        except ConnectionResetError:
            said = b""
    assert said == b""
