"""Sandboxes behind the gateway when a create fails, a Pod is lost, or only some clusters have the gateway."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.access.start import NEEDS_RESTART
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.errors import StartupError
from tests.audit import CLUSTERS, PRODUCTION
from tests.contract.cluster_files import units_of
from tests.contract.faults import refuse_next
from tests.contract.fleet import StartReplica, id_of, write
from tests.contract.gateway import BASE, NO_GATEWAY, NS, gateway, pod_of, services, urls
from tests.contract.lives import nothing_left, reaper_of
from tests.contract.service import URL, StartProvisioner, create, until
from tests.contract.test_lost_nodes import lose
from tests.contract.test_service import render
from tests.contract.test_without_patch import BASIC, rules
from tests.contract.views import until_fresh
from tests.kubectl import Kubectl

pytestmark = [pytest.mark.usefixtures("without_reaper"), pytest.mark.slow]


async def test_a_rejected_create_leaves_nothing_and_the_others_of_its_batch_are_made(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(**gateway(tmp_path))
    await until_fresh(provisioner)
    refuse_next(cluster, "patch", "pods", "apply-quota-exceeded")
    names = [f"s{number}" for number in range(4)]
    answers = await asyncio.gather(*(provisioner.post(URL, json={"sandbox_id": name}) for name in names))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 429]
    made = {name for name, answer in zip(names, answers, strict=True) if answer.status == 200}
    assert set(await urls(provisioner)) == made
    assert len(cluster.objects("Pod", NS)) == 3


@pytest.mark.deadlines(undo=0.3, settle_pause=0.1, others_service=3600.0)
@pytest.mark.starts_in_full
async def test_a_pod_of_a_create_that_was_cut_off_is_deleted_without_a_wait_for_its_service(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(**gateway(tmp_path))
    provisioner.set_deadlines(create=5.0)
    await until_fresh(provisioner)
    cluster.faults.hang(verb="get")
    cluster.faults.cut(0, verb="patch", resource="pods")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status in {503, 504}
    await until(lambda: provisioner.view.sandbox("a")[0] is not None)
    assert await (await provisioner.get(URL)).json() == {"sandboxes": [], "count": 0}
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))


async def test_the_clock_is_measured_without_the_right_to_make_services(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.make_namespace(NS)
    cluster.authorization.restrict(NS, rules((*BASIC, "patch"), ("get", "list", "watch")))
    provisioner = await start_provisioner(**gateway(tmp_path))
    assert await provisioner.client.app[SANDBOX_SERVICE].clock() is not None
    assert "clock can't be measured" not in caplog.text
    assert nothing_left(cluster)


async def test_a_lost_sandbox_behind_the_gateway_is_replaced_by_force(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    cluster.stopping_takes(3600)
    provisioner = await start_provisioner(**gateway(tmp_path), ALLOW_FIELDS="force")
    old = (await create(provisioner))["sandbox_url"]
    uid = await lose(provisioner, cluster, kubectl)
    made = await create(provisioner, force=True)
    assert made["sandbox_url"].startswith(f"{BASE}/s/a/")
    assert made["sandbox_url"] != old
    assert pod_of(cluster)["metadata"]["uid"] != uid


async def test_render_prints_the_pod_alone(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    await start_provisioner(**gateway(tmp_path))
    printed = json.loads(render("--sandbox-id", "a"))
    assert [obj["kind"] for obj in printed["items"]] == ["Pod"]


@pytest.mark.role(PRODUCTION)
async def test_the_start_warns_of_settings_that_the_gateway_overrides(
    start_provisioner: StartProvisioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"SANDBOX_SERVICE_TYPE": "ClusterIP", "SANDBOX_NETWORK_POLICY": "isolated"}
    with caplog.at_level(logging.WARNING):
        await start_provisioner(**gateway(tmp_path), **variables)
    lines = [line.getMessage() for line in caplog.records]
    assert sum("SANDBOX_ACCESS=gateway wins over SANDBOX_SERVICE_TYPE" in line for line in lines) == 1
    assert sum("blocks all ingress to the sandboxes, that of the gateway, too" in line for line in lines) == 1


async def test_the_service_does_not_start_without_what_the_gateway_needs(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    with pytest.raises(StartupError, match="SANDBOX_GATEWAY_DIAL=auto means a tunnel outside a Pod"):
        await start_provisioner(**gateway(tmp_path) | {"SANDBOX_GATEWAY_SERVE": "", "SANDBOX_GATEWAY_DIAL": ""})


@pytest.mark.role(CLUSTERS)
@pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0)
async def test_each_cluster_of_the_file_has_its_own_access(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path, tmp_path: Path
) -> None:
    write(path, clusters, east={"access": "gateway"})
    replica = await start_replica(**gateway(tmp_path, "node-port"))
    made = {name: await create(replica, id_of(name)) for name in clusters}
    assert made["east"]["sandbox_url"].startswith(BASE)
    assert not made["west"]["sandbox_url"].startswith(BASE)
    assert (services(clusters["east"]), services(clusters["west"])) == (set(), {id_of("west")})
    assert await urls(replica) == {id_of(name): made[name]["sandbox_url"] for name in clusters}
    for name in clusters:
        assert (await replica.delete(f"{URL}/{id_of(name)}")).status == 200
    await until(lambda: all(map(nothing_left, clusters.values())))


@pytest.mark.role(CLUSTERS)
@pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, ready_believed=0.0, clusters_answer=10.0)
async def test_an_entry_that_turns_to_a_gateway_that_is_not_there_is_refused(
    clusters: dict[str, Cluster], start_replica: StartReplica, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replica = await start_replica(**NO_GATEWAY)
    write(path, clusters, east={"access": "gateway"})
    await units_of(replica).follow_once()
    assert NEEDS_RESTART in caplog.text
    assert (await create(replica, id_of("east")))["sandbox_url"].startswith("http://127.0.0.1:")
    assert await reaper_of(replica).due() == []
