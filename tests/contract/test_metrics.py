"""/metrics, with a real kubectl on devcluster."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from devcluster import Cluster
from sandboxes import expiry
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.ops.metrics import FAMILIES
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.contract.views import end_watches
from tests.metrics import Samples, samples, value


async def scrape(service: Provisioner) -> Samples:
    response = await service.get("/metrics")
    assert response.status == 200
    return dict(samples(await response.text()))


async def until_value(service: Provisioner, wanted: float, name: str, **labels: str) -> None:
    """Wait until a sample has this value."""

    async def is_so() -> bool:
        return value(await scrape(service), name, **labels) == wanted

    await until(is_so)


async def test_metrics_follow_a_sandbox_from_create_to_reaping(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provisioner.view.becomes_fresh()
    await create(provisioner, ttl_seconds=60)
    await create(provisioner)
    await until_value(provisioner, 1, "provisioner_create_to_ready_seconds_count")
    await until_value(provisioner, 1, "provisioner_sandboxes", status="Running")
    found = await scrape(provisioner)
    assert 0 < value(found, "provisioner_create_to_ready_seconds_sum") < 20
    assert value(found, "provisioner_sandboxes", status="Failed") == 0
    assert value(found, "provisioner_group_size_count", work="apply") == 1
    assert value(found, "provisioner_kubectl_call_seconds_count", verb="apply", outcome="ok") >= 1
    assert value(found, "provisioner_view_fresh") == 1
    assert 0 <= value(found, "provisioner_view_age_seconds") < 60

    ahead = timedelta(seconds=120)
    monkeypatch.setattr(expiry, "present", lambda: datetime.now(UTC) + ahead)
    await provisioner.client.app[SANDBOX_SERVICE].reaper.round(dry_run=True)
    assert value(await scrape(provisioner), "provisioner_reaped_total", reason="expired") == 0
    await provisioner.client.app[SANDBOX_SERVICE].reaper.round(dry_run=False)
    assert value(await scrape(provisioner), "provisioner_reaped_total", reason="expired") == 1
    await until_value(provisioner, 0, "provisioner_sandboxes", status="Running")
    assert await until_gone(cluster)


async def until_gone(cluster: Cluster) -> bool:
    await until(lambda: not cluster.objects("Pod"))
    return True


async def test_a_sandbox_deleted_before_it_is_ready_is_not_measured(provisioner: Provisioner, cluster: Cluster) -> None:
    await provisioner.view.becomes_fresh()
    cluster.server_takes(3600)
    await create(provisioner)
    await create(provisioner)
    await until_value(provisioner, 1, "provisioner_sandboxes", status="Running")
    await provisioner.delete(f"{URL}/a")
    await until_gone(cluster)
    assert value(await scrape(provisioner), "provisioner_create_to_ready_seconds_count") == 0


@pytest.mark.starts_in_full
async def test_batches_queues_and_running_processes_are_measured(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(KUBECTL_MAX_PROCESSES="2")
    cluster.faults.slow(0.3, verb="patch")
    tasks = [asyncio.create_task(create(provisioner, f"s{number}")) for number in range(20)]

    async def all_busy() -> bool:
        return value(await scrape(provisioner), "provisioner_kubectl_processes", state="running") == 2

    async def many_wait() -> bool:
        return value(await scrape(provisioner), "provisioner_queue_length", work="apply") >= 10

    await until(all_busy)
    tasks += [asyncio.create_task(create(provisioner, f"t{number}")) for number in range(10)]
    await until(many_wait)
    cluster.faults.clear()
    await asyncio.gather(*tasks)
    found = await scrape(provisioner)
    assert value(found, "provisioner_group_size_sum", work="apply") == 30
    assert value(found, "provisioner_group_size_count", work="apply") < 30
    assert value(found, "provisioner_queue_length", work="apply") == 0


@pytest.mark.starts_in_full
async def test_waiting_processes_and_watch_restarts_are_counted(provisioner: Provisioner, cluster: Cluster) -> None:
    await until_value(provisioner, 4, "provisioner_kubectl_processes", state="waiting")
    await until_value(provisioner, 2, "provisioner_kubectl_processes", state="watching")
    assert value(await scrape(provisioner), "provisioner_watch_restarts_total", resource="pods") == 0
    await end_watches(cluster)
    await until_value(provisioner, 1, "provisioner_watch_restarts_total", resource="pods")
    await until_value(provisioner, 1, "provisioner_watch_restarts_total", resource="services")


async def test_a_scrape_in_an_outage_shows_a_stale_view_and_no_sandbox_counts(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    await provisioner.view.becomes_fresh()
    cluster.faults.refuse()
    await until_value(provisioner, 0, "provisioner_view_fresh")
    found = await scrape(provisioner)
    assert not any(name == "provisioner_sandboxes" for name, _ in found)
    assert (await provisioner.get("/livez")).status == 200


@pytest.mark.starts_in_full
async def test_a_working_service_exports_exactly_the_documented_metrics(provisioner: Provisioner) -> None:
    await provisioner.view.becomes_fresh()
    await create(provisioner)
    text = await (await provisioner.get("/metrics")).text()
    families = {one.name: one for one in text_string_to_metric_families(text) if one.name.startswith("provisioner_")}
    kinds = {name: one.type for name, one in families.items() if not name.endswith("_created")}
    assert kinds == {name.removesuffix("_total"): family.kind for name, family in FAMILIES.items()}
    assert {name: one.documentation for name, one in families.items() if name in kinds} == {
        name.removesuffix("_total"): family.meaning for name, family in FAMILIES.items()
    }
    for one in families.values():
        for sample in one.samples:
            (family,) = [FAMILIES[name] for name in FAMILIES if one.name.removesuffix("_created") in name]
            assert set(sample.labels) - {"le"} == set(family.labels)
