"""Reads from the informer while lists, watches and the cluster fail."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.views import (
    QUICK_VIEW,
    TamperedKubectl,
    create_manually,
    delete_manually,
    ids,
    in_list,
    not_in_list,
    status_of,
    until_fresh,
)
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = QUICK_VIEW


async def test_reads_start_no_kubectl_process(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner)
    await until_fresh(provisioner)
    await until(lambda: cluster.open_watches() == 2)
    before = tampered.calls()
    for _ in range(20):
        assert await status_of(provisioner) == 200
        assert await ids(provisioner) == {"a"}
    after = tampered.calls()
    assert after["other"] == before["other"]
    assert after["list"] == before["list"]


async def test_reads_see_own_writes(provisioner: Provisioner) -> None:
    await until_fresh(provisioner)
    for number in range(5):
        await create(provisioner, f"s{number}")
        assert await status_of(provisioner, f"s{number}") == 200
        assert f"s{number}" in await ids(provisioner)
        assert (await provisioner.delete(f"{URL}/s{number}")).status == 200
        assert await status_of(provisioner, f"s{number}") == 404
        assert f"s{number}" not in await ids(provisioner)


@pytest.mark.slow
async def test_a_create_after_a_delete_of_the_same_unknown_id_is_listed_at_once(provisioner: Provisioner) -> None:
    await until_fresh(provisioner)
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await create(provisioner)
    assert await ids(provisioner) == {"a"}
    assert await status_of(provisioner) == 200


@pytest.mark.deadlines(delete=1.0)
async def test_a_get_after_a_timed_out_delete_matches_the_cluster(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    await until_fresh(provisioner)
    cluster.faults.slow(2.0, verb="delete", resource="pods")
    assert (await provisioner.delete(f"{URL}/a")).status == 504
    answer = await provisioner.get(f"{URL}/a")
    assert (answer.status == 200) == (cluster.get("Service", "deer-flow", "sandbox-a-svc") is not None)


async def test_changes_by_other_writers_are_seen(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    await until_fresh(provisioner)
    await create_manually(kubectl, template, "a")
    await until(lambda: in_list(provisioner, "a"))

    async def running() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json()).get("status") == "Running")

    await until(running)
    await delete_manually(kubectl, "a")
    await until(lambda: not_in_list(provisioner, "a"))
    assert await status_of(provisioner) == 404
    assert cluster.objects("Service") == []


async def test_a_get_finds_another_replicas_sandbox_while_watches_hang(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    """Even while the watches report nothing."""
    tampered.set_mode("watch-hangs")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until_fresh(provisioner)
    other = await start_provisioner(LIVE_VIEW="false")
    await create(other)
    assert await status_of(provisioner) == 200


@pytest.mark.slow
async def test_two_hundred_gets_of_unknown_ids_start_fewer_than_forty_processes(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until_fresh(provisioner)
    before = tampered.calls()["other"]
    statuses = await asyncio.gather(*(status_of(provisioner, f"none-{n}") for n in range(200)))
    assert set(statuses) == {404}
    assert tampered.calls()["other"] - before < 40


@pytest.mark.slow
async def test_a_failed_list_with_an_empty_list_on_stdout_removes_nothing(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner)
    await until_fresh(provisioner)
    tampered.set_mode("list-fails")
    before = tampered.calls()["list"]
    await cluster.faults.restart(forget=True)
    await until(lambda: tampered.calls()["list"] > before)
    assert provisioner.view.sandbox("a")[0] is not None
    assert not provisioner.view.is_fresh
    assert await status_of(provisioner) == 200  # live
    assert (await provisioner.get(URL)).status == 503
    tampered.set_mode("")
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"a"}


@pytest.mark.slow
async def test_a_late_list_does_not_restore_a_deleted_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster, tampered: TamperedKubectl, tmp_path: Path
) -> None:
    """The list was read before the delete, and ends after the objects are gone."""
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner)
    await until_fresh(provisioner)
    tampered.set_mode("list-lags")
    await cluster.faults.restart(forget=True)
    lagging = tmp_path / "lagging"
    await until(lambda: lagging.exists() and len(lagging.read_text().splitlines()) == 2)
    tampered.set_mode("")
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await until(lambda: cluster.objects("Pod") == [])
    (tmp_path / "go").touch()
    while not provisioner.view.is_fresh:
        assert await ids(provisioner) == set()
        await asyncio.sleep(0.01)
    assert await ids(provisioner) == set()
    assert await status_of(provisioner) == 404


async def test_an_api_server_restarted_without_old_versions_is_listed_again(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    await create(provisioner)
    await until_fresh(provisioner)
    await cluster.faults.restart(forget=True)
    await create_manually(kubectl, template, "new")
    await until(lambda: in_list(provisioner, "new"))
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"a", "new"}


async def test_a_read_is_503_while_the_cluster_is_unreachable_and_200_afterwards(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    await create(provisioner)
    await until_fresh(provisioner)
    cluster.faults.refuse()
    await until(lambda: not provisioner.view.is_fresh)
    assert await status_of(provisioner) == 503
    cluster.faults.clear()
    await until_fresh(provisioner)
    assert await status_of(provisioner) == 200


async def fill(cluster: Cluster, template: Template, count: int) -> None:
    """Create many sandboxes directly in the API server."""
    settings = Settings.load()
    tls = ssl.create_default_context(cafile=cluster.ca_file)
    headers = {"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/apply-patch+yaml"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def put(obj: dict[str, Any], resource: str) -> None:
            path = f"/api/v1/namespaces/{settings.k8s_namespace}/{resource}/{obj['metadata']['name']}"
            async with session.patch(
                f"{cluster.url}{path}?fieldManager=provisioner&force=true", data=json.dumps(obj), ssl=tls
            ) as response:
                assert response.status == 201, await response.text()

        for number in range(count):
            pod, service = build(Sandbox(f"s{number}", "t", "u"), template, settings, applied_at="2026-01-01T00:00:00Z")
            await put(pod, "pods")
            await put(service, "services")


@pytest.mark.slow
async def test_more_than_1200_objects_are_listed_at_the_start(
    start_provisioner: StartProvisioner, cluster: Cluster, template: Template, kubectl: Kubectl
) -> None:
    first = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await create(first, "one")
    await fill(cluster, template, 620)
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await until_fresh(provisioner)
    assert len(await ids(provisioner)) == 621
    await delete_manually(kubectl, "s0")
    await until(lambda: not_in_list(provisioner, "s0"))
    assert len(await ids(provisioner)) == 620


async def test_reconciliation_finds_another_replicas_sandbox_and_is_503_in_an_outage(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, cluster: Cluster
) -> None:
    """Even while the watches report nothing."""
    tampered.set_mode("watch-hangs")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until_fresh(provisioner)
    path = "/api/reconciliation/sandboxes/a"
    assert (await (await provisioner.get(path)).json())["status"] == "absent"
    other = await start_provisioner(LIVE_VIEW="false")
    await create(other, thread_id="t", user_id="u")
    answer = await (await provisioner.get(path)).json()
    (pod,) = cluster.objects("Pod", "deer-flow")
    owner = {"thread_id": "t", "user_id": "u", "backend_namespace": "deer-flow"}
    assert answer.items() >= {"status": "found", "incarnation_id": pod["metadata"]["uid"], **owner}.items()
    assert (await other.delete(f"{URL}/a")).status == 200
    await until(lambda: not cluster.objects("Pod", "deer-flow"))
    assert (await (await other.get(path)).json())["status"] == "absent"
    cluster.faults.refuse()
    assert (await other.get(path)).status == 503


async def incarnation(provisioner: Provisioner) -> tuple[str, str | None]:
    response = await provisioner.get("/api/reconciliation/sandboxes/a")
    assert response.status == 200
    answer = await response.json()
    return answer["status"], answer["incarnation_id"]


async def test_reconciliation_asks_the_cluster_where_the_view_is_behind(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    await until_fresh(provisioner)
    await until(lambda: None not in provisioner.view.sandbox("a"))
    cluster.faults.silence_watches()
    await kubectl("delete", "pod/sandbox-a", "-n", "deer-flow", "--grace-period=0", "--force")
    assert None not in provisioner.view.sandbox("a")
    assert await incarnation(provisioner) == ("absent", None)


@pytest.mark.slow
async def test_reconciliation_finds_a_terminating_pod_until_it_is_gone(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    await until_fresh(provisioner)
    found = await incarnation(provisioner)
    (pod,) = cluster.objects("Pod", "deer-flow")
    assert found == ("found", pod["metadata"]["uid"])

    async def keep(finalizers: str) -> None:
        patch = f'{{"metadata":{{"finalizers":{finalizers}}}}}'
        done = await kubectl("patch", "pod/sandbox-a", "-n", "deer-flow", "--type=merge", f"--patch={patch}")
        assert done.rc == 0, done.stderr

    await keep('["example.com/held"]')
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    assert await status_of(provisioner) == 404
    assert await incarnation(provisioner) == found
    await keep("[]")
    await until(lambda: not cluster.objects("Pod", "deer-flow"))
    assert await incarnation(provisioner) == ("absent", None)
