"""Sandboxes by the gateway of the service: their URLs, other ports, ends, and all URLs made invalid."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from devcluster.authorization import Right
from sandboxes import objects as kube
from tests.contract.gateways import (
    KEY,
    NEW_KEY,
    NOT_FOUND,
    NS,
    PODS_ANSWER,
    StartReplica,
    becomes,
    get,
    reached,
    url_of,
)
from tests.contract.service import URL, create, until


async def test_a_sandbox_is_reached_by_its_url_and_nothing_is_made_beside_its_pod(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway()
    url = await url_of(replica)
    assert url.startswith(f"http://127.0.0.1:{replica.port}/s/a/")
    answer = await reached(session, f"{url}/v1/sandbox?deep=1")
    pod = cluster.get("Pod", NS, "sandbox-a")
    assert pod is not None
    assert (answer["host"], answer["port"], answer["path"]) == (pod["status"]["podIP"], 8080, "/v1/sandbox?deep=1")
    assert answer["headers"]["X-Forwarded-Prefix"] == "/s/" + url.partition("/s/")[2]
    assert cluster.objects("Service", NS) == []
    async with session.ws_connect(f"{url}/socket") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"


pytestmark = PODS_ANSWER


async def test_every_answer_of_every_replica_has_the_same_url(start_gateway: StartReplica) -> None:
    first, second = await start_gateway(), await start_gateway()
    url = await url_of(first)
    assert await url_of(second) == url
    for one in (first, second):
        assert (await (await one.service.get(f"{URL}/a")).json())["sandbox_url"] == url
        assert [item["sandbox_url"] for item in (await (await one.service.get(URL)).json())["sandboxes"]] == [url]


async def test_another_port_and_an_end_have_urls_of_their_own(
    start_gateway: StartReplica, session: aiohttp.ClientSession
) -> None:
    replica = await start_gateway()
    url = await url_of(replica)
    await reached(session, url)
    response = await replica.service.post(f"{URL}/a/urls", json={"port": 8080, "ttl_seconds": 2})
    made = await response.json()
    assert response.status == 200
    assert set(made) == {"url", "port", "expires_at"}
    assert (await reached(session, made["url"]))["port"] == 8080
    stream = await session.get(f"{made['url']}/stream")
    assert await stream.content.readline() == b"line\n"
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()
    assert await get(session, made["url"]) == NOT_FOUND
    assert (await get(session, url))[0] == 200


async def test_tokens_lead_to_their_own_sandbox_and_port_only(
    start_gateway: StartReplica, session: aiohttp.ClientSession
) -> None:
    replica = await start_gateway()
    mine, other = await url_of(replica, "a"), await url_of(replica, "b")
    await reached(session, mine)
    await reached(session, other)
    base = f"http://127.0.0.1:{replica.port}/s"
    token, others = mine.rpartition("/")[2], other.rpartition("/")[2]
    in_another_namespace = await start_gateway(K8S_NAMESPACE="elsewhere")
    foreign = in_another_namespace.at(mine)
    await becomes(session, foreign, 404)
    wrong = (
        f"{base}/a/{others}", f"{base}/b/{token}", f"{base}/never/{token}", f"{base}/a/3000..{token}",
        f"{base}/a/{token[:-1]}", f"{base}/a", f"{base}/a/", "http://127.0.0.1:" + f"{replica.port}/api/sandboxes",
        foreign,
    )  # fmt: skip
    assert [await get(session, url) for url in wrong] == [NOT_FOUND] * len(wrong)


async def test_a_sandbox_made_anew_has_another_url_on_every_replica(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replicas = [await start_gateway(), await start_gateway()]
    old = await url_of(replicas[0])
    for one in replicas:
        await reached(session, one.at(old))
    stream = await session.get(f"{replicas[1].at(old)}/stream")
    assert (await replicas[0].service.delete(f"{URL}/a")).status == 200
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()
    for one in replicas:
        await becomes(session, one.at(old), 404)
    await until(lambda: cluster.get("Pod", NS, "sandbox-a") is None)
    new = await url_of(replicas[0])
    assert new != old
    for one in replicas:
        await reached(session, one.at(new))
        assert await get(session, one.at(old)) == NOT_FOUND


async def test_all_urls_of_a_sandbox_can_be_made_invalid_on_every_replica(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replicas = [await start_gateway(), await start_gateway()]
    first, second = replicas
    url, other = await url_of(first, "a"), await url_of(first, "b")
    timed = (await (await second.service.post(f"{URL}/a/urls", json={"ttl_seconds": 600})).json())["url"]
    for one in replicas:
        await reached(session, one.at(url))
        await reached(session, one.at(other))
    stream = await session.get(f"{second.at(timed)}/stream")
    response = await first.service.delete(f"{URL}/a/urls")
    answer = await response.json()
    assert (response.status, answer["sandbox_id"], answer["status"]) == (200, "a", "Running")
    assert answer["sandbox_url"] != url
    assert await get(session, first.at(url)) == NOT_FOUND, "at once where it was asked for"
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()
    for one in replicas:
        await becomes(session, one.at(url), 404)
        assert await get(session, one.at(timed)) == NOT_FOUND
        assert (await get(session, one.at(answer["sandbox_url"])))[0] == 200
        assert (await get(session, one.at(other)))[0] == 200
    assert await url_of(second) == answer["sandbox_url"], "a create keeps it"
    pod = cluster.get("Pod", NS, "sandbox-a")
    assert pod is not None
    managers = {
        one["manager"]
        for one in pod["metadata"]["managedFields"]
        if f"f:{kube.URL_GENERATION_ANNOTATION}" in str(one["fieldsV1"])
    }
    assert managers == {"provisioner-urls"}


async def test_without_the_right_to_patch_urls_stay_valid_and_the_answer_says_why(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    replica = await start_gateway()
    url = await url_of(replica)
    await reached(session, url)
    verbs = ["create", "delete", "get", "list", "watch"]
    cluster.authorization.restrict(NS, [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": verbs}])
    response = await replica.service.delete(f"{URL}/a/urls")
    assert response.status == 502
    assert "lacks the right to patch pods" in (await response.json())["detail"]
    assert (await get(session, url))[0] == 200
    assert Right("patch", "", "pods") not in cluster.authorization.used


async def test_old_urls_live_until_their_key_goes(
    start_gateway: StartReplica, session: aiohttp.ClientSession, keys: Path
) -> None:
    replica = await start_gateway()
    old = await url_of(replica)
    await reached(session, old)
    keys.write_text(f"{NEW_KEY}\n{KEY}\n")
    new = await url_of(replica)
    assert new != old
    assert [(await get(session, one))[0] for one in (old, new)] == [200, 200]
    keys.write_text(f"{NEW_KEY}\n")
    assert await get(session, old) == NOT_FOUND
    assert (await get(session, new))[0] == 200


async def test_a_sandbox_with_a_service_has_no_such_urls(start_gateway: StartReplica) -> None:
    with_services = await start_gateway(SANDBOX_ACCESS="node-port")
    await create(with_services.service, "a")
    for method in ("post", "delete"):
        response = await getattr(with_services.service, method)(f"{URL}/a/urls")
        assert response.status == 409
        detail = "Sandbox 'a' is not reached by the gateway, so it has no such URL"
        assert (await response.json())["detail"] == detail


async def test_traffic_puts_off_the_end_of_an_idle_sandbox(
    start_gateway: StartReplica, session: aiohttp.ClientSession, cluster: Cluster
) -> None:
    def used_at() -> str:
        pod = cluster.get("Pod", NS, "sandbox-a")
        assert pod is not None
        return kube.get_annotations(pod).get(kube.USED_ANNOTATION, "")

    replica = await start_gateway(ALLOW_FIELDS="idle_timeout_seconds", REAPER_INTERVAL="0")
    url = await url_of(replica, idle_timeout_seconds=11)  # written within a second, not only after a minute
    before = used_at()
    await reached(session, url)

    async def is_written() -> bool:
        await get(session, url)
        return used_at() > before

    await until(is_written)
