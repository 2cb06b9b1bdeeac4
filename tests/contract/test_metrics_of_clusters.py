"""/metrics with and without CLUSTERS_FILE: the label `cluster`, and nothing new without the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from devcluster import Cluster
from sandboxes.ops.metrics import FAMILIES
from tests.contract.cluster_files import change, create_on, entry, write
from tests.contract.service import Provisioner, StartProvisioner, create
from tests.metrics import scrape, value
from tests.pages import TEXTS
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.role("components/clusters"),
    pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0),
    pytest.mark.usefixtures("without_reaper"),
]

BEFORE = Path(__file__).with_name("metrics-of-one-cluster.txt")


async def text_of(service: Provisioner) -> str:
    response = await service.get("/metrics")
    assert response.status == 200
    return await response.text()


def without_values(text: str) -> str:
    """Return the lines about the provisioner, of a sample all but its value."""
    lines = [line for line in text.splitlines() if "provisioner_" in line]
    return "".join(f"{line if line.startswith('#') else line.rpartition(' ')[0]}\n" for line in lines)


@pytest.mark.starts_in_full
async def test_without_the_file_the_text_is_as_it_was_byte_for_byte(provisioner: Provisioner) -> None:
    await provisioner.view.becomes_fresh()
    await create(provisioner)

    async def is_measured() -> bool:
        return value(await scrape(provisioner.client), "provisioner_create_to_ready_seconds_count") == 1

    await until(is_measured)
    # Requests and calls, which on a busy machine may be others, are in other tests.
    varying = ("provisioner_http_request", "provisioner_kubectl_call", "provisioner_group_size")
    lines = without_values(await text_of(provisioner)).splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(varying)]
    assert "".join(kept) == BEFORE.read_text()


def clusters_by_family(text: str) -> dict[str, set[str | None]]:
    """Return the values of the label `cluster` of each of the provisioner's metrics that has a sample."""
    families = [one for one in text_string_to_metric_families(text) if one.name.startswith("provisioner_")]
    return {
        one.name: {sample.labels.get("cluster") for sample in one.samples}
        for one in families
        if one.samples and not one.name.endswith("_created")
    }


async def test_with_the_file_each_metric_of_a_cluster_names_it(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    assert (await service.get("/api/none")).status == 404
    for name, ids in (("east", "a"), ("west", "bc")):
        for sandbox_id in ids:
            await create_on(service, name, sandbox_id)

    async def are_counted() -> bool:
        found = await scrape(service.client)
        running = {
            name: value(found, "provisioner_sandboxes", status="Running", cluster=name) for name in ("east", "west")
        }
        ready = {
            name: value(found, "provisioner_create_to_ready_seconds_count", cluster=name) for name in ("east", "west")
        }
        return running == ready == {"east": 1, "west": 2}

    await until(are_counted)
    found = clusters_by_family(await text_of(service))
    of_service = {"provisioner_http_request_seconds"}
    assert {name for name, clusters in found.items() if clusters == {None}} == of_service
    assert {name for name, clusters in found.items() if clusters == {"east", "west"}} == set(found) - of_service
    # Those without a sample: nothing has been reaped or failed.
    silent = {"provisioner_reaped_total", "provisioner_failures_total"}
    assert set(found) == {name.removesuffix("_total") for name in set(FAMILIES) - silent}
    assert value(await scrape(service.client), "provisioner_group_size_sum", work="apply", cluster="west") == 2


async def test_metrics_follow_the_clusters_that_join_and_leave(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    await change(service, path, entry("east", cluster), entry("west", west))

    async def has_both() -> bool:
        found = clusters_by_family(await text_of(service))
        return found["provisioner_kubectl_processes"] == {"east", "west"} == found["provisioner_view_fresh"]

    await until(has_both)
    await create_on(service, "west", "a")
    await change(service, path, entry("east", cluster), entry("west", west, max_sandboxes=5))
    assert value(await scrape(service.client), "provisioner_group_size_sum", work="apply", cluster="west") == 1
    await change(service, path, entry("east", cluster), entry("west", west, max_sandboxes=5, lost=True))
    await change(service, path, entry("east", cluster))
    assert 'cluster="west"' not in await text_of(service)


def test_the_page_names_the_metrics_without_the_label() -> None:
    page = TEXTS["docs/reference/metrics.md"].partition("With `CLUSTERS_FILE`")[2].partition(", which belong")[0]
    assert set(re.findall(r"`(\w+)`", page)) == {one.name for one in FAMILIES.values() if not one.of_cluster}
