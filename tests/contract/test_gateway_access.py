"""Sandboxes behind the gateway: their objects, their URL, and what a switch of SANDBOX_ACCESS leaves whole."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.access.gateway import subject_of
from sandboxes.access.keys import FileKeys
from sandboxes.access.tokens import Grant, check
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template
from tests.contract.gateway import BASE, KEY, NO_GATEWAY, NS, gateway, pod_of, services, urls
from tests.contract.lives import SERVICE, is_ready, nothing_left, pass_time, reaper_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.contract.test_events import subscribed
from tests.contract.test_healing import manual_objects
from tests.contract.test_without_patch import BASIC, rules
from tests.contract.views import TamperedKubectl, status_of, until_fresh
from tests.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("without_reaper")

NODE_PORT = "http://127.0.0.1:"


def writes(cluster: Cluster) -> int:
    """Count the requests that have changed an object of a sandbox."""
    return sum(
        request.method.value != "GET" and f"/namespaces/{NS}/" in str(request.url) for request in cluster.kmock.requests
    )


async def test_a_sandbox_is_its_pod_alone_and_its_url_has_a_valid_token(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(**gateway(tmp_path))
    made = await create(provisioner)
    assert services(cluster) == set()
    prefix, _, token = made["sandbox_url"].rpartition("/")
    assert prefix == f"{BASE}/s/a"
    subject = subject_of(pod_of(cluster), Settings.load())
    assert check(token, subject, FileKeys(tmp_path / "gateway-keys"), time.time()) == Grant(8080, None)
    assert await urls(provisioner) == {"a": made["sandbox_url"]}
    assert (await create(provisioner))["sandbox_url"] == made["sandbox_url"]
    for path in (f"{URL}/a/diagnostics", "/api/reconciliation/sandboxes/a"):
        assert (await (await provisioner.get(path)).json())["sandbox_url"] == made["sandbox_url"]
    for path, body in ((f"{URL}/a/touch", {}), (f"{URL}/a/renew", {"ttl_seconds": 60})):
        assert (await (await provisioner.post(path, json=body)).json())["sandbox_url"] == made["sandbox_url"]
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    assert await status_of(provisioner) == 404
    await until(lambda: nothing_left(cluster))
    assert (await create(provisioner))["sandbox_url"] != made["sandbox_url"]


async def test_a_sandbox_takes_half_the_writes_and_no_more_calls_than_with_a_service(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, tampered: TamperedKubectl
) -> None:
    counts = []
    for variables in (NO_GATEWAY, gateway(tmp_path)):
        provisioner = await start_provisioner(KUBECTL=str(tampered.path), **variables)
        await until_fresh(provisioner)
        calls, written = tampered.calls()["other"], writes(cluster)
        await create(provisioner)
        made = writes(cluster) - written
        assert (await provisioner.delete(f"{URL}/a")).status == 200
        counts.append((made, writes(cluster) - written - made, tampered.calls()["other"] - calls))
        await until(lambda: nothing_left(cluster))
        await provisioner.client.close()
    assert counts == [(2, 2, 2), (1, 1, 2)]


async def test_a_switch_to_the_gateway_keeps_what_has_a_service(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = await start_provisioner()
    old = {name: (await create(before, name))["sandbox_url"] for name in ("kept", "half", "deleted")}
    await before.client.close()
    provisioner = await start_provisioner(**gateway(tmp_path))
    await until_fresh(provisioner)
    assert await urls(provisioner) == old
    assert (await create(provisioner, "kept"))["sandbox_url"] == old["kept"]
    assert (await create(provisioner, "new"))["sandbox_url"].startswith(BASE)
    assert (await provisioner.delete(f"{URL}/deleted")).status == 200
    await kubectl("delete", "service/sandbox-half-svc", "-n", NS)
    await until(lambda: provisioner.view.sandbox("half")[1] is None)
    assert await status_of(provisioner, "half") == 404
    pass_time(monkeypatch, hours=1)
    assert [one.sandbox_id for one in await reaper_of(provisioner).due()] == ["half"]
    assert (await create(provisioner, "half"))["sandbox_url"].startswith(NODE_PORT)
    assert services(cluster) == {"kept", "half"}
    # Made anew, it has the access of new sandboxes.
    assert (await provisioner.delete(f"{URL}/kept")).status == 200
    assert (await create(provisioner, "kept"))["sandbox_url"].startswith(BASE)


async def test_a_switch_from_cluster_ip_to_the_gateway_keeps_urls(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    before = await start_provisioner(SANDBOX_ACCESS="cluster-ip")
    old = (await create(before))["sandbox_url"]
    assert old.startswith("http://sandbox-a-svc.")
    await before.client.close()
    assert await urls(await start_provisioner(**gateway(tmp_path))) == {"a": old}


async def test_a_switch_back_goes_on_with_the_gateway_while_it_is_configured(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await start_provisioner(**gateway(tmp_path))
    old = (await create(before, "old"))["sandbox_url"]
    await before.client.close()
    provisioner = await start_provisioner(**gateway(tmp_path, "node-port"))
    new = (await create(provisioner, "new"))["sandbox_url"]
    assert new.startswith(NODE_PORT)
    assert (await create(provisioner, "old"))["sandbox_url"] == old
    await until_fresh(provisioner)
    assert await urls(provisioner) == {"new": new, "old": old}
    assert services(cluster) == {"new"}
    pass_time(monkeypatch, hours=1)
    assert await reaper_of(provisioner).due() == []


@pytest.mark.parametrize("live_view", ["true", pytest.param("false", marks=pytest.mark.slow)])
async def test_without_a_gateway_its_sandboxes_are_hidden_counted_healed_and_deleted_whole(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, live_view: str,
) -> None:  # fmt: skip
    before = await start_provisioner(**gateway(tmp_path))
    old = {name: (await create(before, name))["sandbox_url"] for name in ("healed", "deleted")}
    await before.client.close()
    with caplog.at_level(logging.WARNING):
        provisioner = await start_provisioner(**NO_GATEWAY, MAX_SANDBOXES="2", LIVE_VIEW=live_view)
        await until(lambda: "made for the gateway" in caplog.text)
    assert "2 sandboxes were made for the gateway" in caplog.text
    assert "set SANDBOX_GATEWAY_URL" in caplog.text
    assert await urls(provisioner) == {}
    assert await status_of(provisioner, "healed") == 404
    assert (await provisioner.post(URL, json={"sandbox_id": "third"})).status == 429
    pass_time(monkeypatch, hours=1)
    assert await reaper_of(provisioner).due() == []
    healed = (await create(provisioner, "healed"))["sandbox_url"]
    assert healed.startswith(NODE_PORT)
    assert await urls(provisioner) == {"healed": healed}
    assert await reaper_of(provisioner).due() == []
    assert (await provisioner.delete(f"{URL}/deleted")).status == 200
    # With the gateway again, the URL of before is valid, and the Service goes with its sandbox.
    again = await start_provisioner(**gateway(tmp_path), LIVE_VIEW=live_view)
    assert await urls(again) == {"healed": old["healed"]}
    assert (await again.delete(f"{URL}/healed")).status == 200
    await until(lambda: nothing_left(cluster))


async def test_a_service_that_outlives_its_pod_behind_the_gateway_is_reaped(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with_gateway = await start_provisioner(**gateway(tmp_path))
    await create(with_gateway)
    await create(await start_provisioner(**NO_GATEWAY))
    assert services(cluster) == {"a"}
    await kubectl("delete", "pod/sandbox-a", "-n", NS, "--grace-period=0", "--force")
    await until(lambda: with_gateway.view.is_fresh and with_gateway.view.sandbox("a")[0] is None)
    pass_time(monkeypatch, hours=1)
    (due,) = await reaper_of(with_gateway).due()
    # The reaper looks again: a sandbox that needs no Service is made beside the one that is left over.
    await create(with_gateway)
    assert await reaper_of(with_gateway).reap([due]) == []
    assert services(cluster) == {"a"}
    assert (await with_gateway.delete(f"{URL}/a")).status == 200
    await until(lambda: nothing_left(cluster))


async def test_services_of_both_accesses_make_each_sandbox_once(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(6)]
    one, other = await start_provisioner(**NO_GATEWAY), await start_provisioner(**gateway(tmp_path))
    await until_fresh(one)
    await until_fresh(other)
    pairs = [(one, other) if number % 2 else (other, one) for number in range(len(names))]
    await asyncio.gather(*(create(each, name) for name, pair in zip(names, pairs, strict=True) for each in pair))
    marked = {pod["metadata"]["labels"]["sandbox-id"] for pod in cluster.objects("Pod", NS) if is_marked(pod)}
    # A Pod of the one without a gateway has a Service, whoever has made it; and so has one that it has returned.
    assert services(cluster) == set(names)
    await until(lambda: len(list(one.view.sandboxes())) == len(list(other.view.sandboxes())) == len(names))
    of_one, of_other = await urls(one), await urls(other)
    assert {name for name, url in of_other.items() if url.startswith(BASE)} == marked
    assert of_other.keys() == of_one.keys() == set(names)
    assert all(url.startswith(NODE_PORT) for url in of_one.values())
    for number, name in enumerate(names):
        assert (await pairs[number][0].delete(f"{URL}/{name}")).status == 200
    await until(lambda: nothing_left(cluster))


def is_marked(pod: dict[str, object]) -> bool:
    return kube.is_behind_gateway(pod)


@pytest.mark.parametrize(
    ("changes", "begin"),
    [
        ({}, NODE_PORT),
        # No apply can make it a node port: a service that has those deletes and replaces it.
        ({"type": "ClusterIP", "clusterIP": "None"}, "http://sandbox-a-svc."),
    ],
    ids=["node port", "headless"],
)
async def test_adoption_keeps_how_a_pod_is_reached(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, template: Template, tmp_path: Path,
    changes: dict[str, str], begin: str,
) -> None:  # fmt: skip
    await start_provisioner(**NO_GATEWAY, THREADS_HOST_PATH="/threads")
    pod, service = manual_objects(template)
    service["spec"] |= changes
    assert (await kubectl.apply(pod, service, manager="kubectl")).rc == 0
    provisioner = await start_provisioner(**gateway(tmp_path))
    adopted = await create(provisioner, thread_id="t")
    assert adopted["sandbox_url"].startswith(begin)
    assert not is_marked(pod_of(cluster))
    assert (adopted["thread_id"], services(cluster)) == ("t", {"a"})


@pytest.mark.parametrize("has_patch", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_create_needs_no_right_to_make_services(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, has_patch: bool
) -> None:
    cluster.make_namespace(NS)
    of_pods = (*BASIC, *(["patch"] if has_patch else []))
    cluster.authorization.restrict(NS, rules(of_pods, ("get", "list", "watch")))
    provisioner = await start_provisioner(**gateway(tmp_path))
    made = await create(provisioner)
    assert await urls(provisioner) == {"a": made["sandbox_url"]}
    assert (await create(provisioner))["sandbox_url"] == made["sandbox_url"]
    assert (await provisioner.get("/readyz")).status == 200
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await until(lambda: nothing_left(cluster))


async def test_without_patch_and_gateway_its_sandboxes_are_healed_by_a_service(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.make_namespace(NS)
    cluster.authorization.restrict(NS, rules())
    made = await create(await start_provisioner(**gateway(tmp_path), SANDBOX_CONTAINER_PORT="9000"))
    assert made["sandbox_url"].startswith(BASE)
    provisioner = await start_provisioner(**NO_GATEWAY, SANDBOX_CONTAINER_PORT="8080")
    assert (await create(provisioner))["sandbox_url"].startswith(NODE_PORT)
    service = cluster.get(*SERVICE)
    assert service is not None
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [9000]


async def test_another_signing_key_changes_the_url_in_get_list_and_events(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(**gateway(tmp_path))
    await until_fresh(provisioner)
    old = (await create(provisioner))["sandbox_url"]
    assert await urls(provisioner) == {"a": old}
    # From here on, nothing changes but the key.
    await until(lambda: is_ready(pod_of(cluster)))
    await until(lambda: is_ready(provisioner.view.sandbox("a")[0] or {}))
    async with subscribed(provisioner) as stream:
        await stream.until_received(1)
        gateway(tmp_path, keys=f"{'n' * 44}\n{KEY}")
        await until(lambda: has_other_url(provisioner, old))
        new = (await urls(provisioner))["a"]
        assert new != old
        await until(lambda: new in [one.get("sandbox_url") for _, one in stream.events])
        async with subscribed(provisioner) as later:
            await later.until_received(1)
            assert later.events[0][1]["sandboxes"][0]["sandbox_url"] == new


async def has_other_url(provisioner: Provisioner, url: str) -> bool:
    return (await urls(provisioner))["a"] != url
