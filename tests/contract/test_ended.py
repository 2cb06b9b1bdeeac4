"""A sandbox whose own container has ended for good, while a sidecar runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.lives import get_sandbox, nothing_left, pass_time, reaper_of, reaps_one, uid_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.metrics import scrape, value
from tests.waiting import until

pytestmark = [
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.devcluster(start_after=100_000),  # Pods stay as they are until a test puts them into a state
]


@pytest.fixture
async def ended(start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path) -> Provisioner:
    """Return a service with a sandbox that is never restarted: its container has ended, its sidecar runs."""
    folder = tmp_path / "templates" / "once"
    folder.mkdir(parents=True)
    pod: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "sandbox" / "pod.yaml").read_text())
    pod["spec"]["restartPolicy"] = "Never"
    pod["spec"]["containers"].append({"name": "side", "image": "side:1"})
    (folder / "pod.yaml").write_text(yaml.safe_dump(pod))
    (folder / "service.yaml").write_text((ROOT / "manifests" / "sandbox" / "service.yaml").read_text())
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(folder.parent))
    await create(provisioner, template="once")
    cluster.put_pod_into("deer-flow", "sandbox-a", "ready", "crashed")

    async def is_told() -> bool:
        return bool((await get_sandbox(provisioner))["status"] == "Failed")

    await until(is_told)
    return provisioner


async def test_it_is_failed_in_every_answer_though_its_pod_runs(ended: Provisioner, cluster: Cluster) -> None:
    pod = cluster.get("Pod", "deer-flow", "sandbox-a")
    assert pod is not None
    assert pod["status"]["phase"] == "Running"
    answer = await get_sandbox(ended)
    assert (answer["ready"], answer["reason"]) == (False, "Error")
    assert [one["status"] for one in (await (await ended.get(f"{URL}?status=Failed")).json())["sandboxes"]] == [
        "Failed"
    ]
    assert (await (await ended.get(f"{URL}?status=Running")).json())["count"] == 0
    diagnosis = await (await ended.get(f"{URL}/a/diagnostics")).json()
    assert diagnosis["summary"].startswith("Container sandbox ended with exit code 3")
    # A wait for it ends at once, long before its time is over.
    waited = await (await ended.get(f"{URL}/a?wait_seconds=25")).json()
    assert waited["status"] == "Failed"


async def test_the_metrics_count_it_as_failed(ended: Provisioner) -> None:
    assert value(await scrape(ended.client), "provisioner_sandboxes", status="Failed") == 1


async def test_the_same_create_replaces_it(ended: Provisioner, cluster: Cluster) -> None:
    before = uid_of(cluster)
    answer = await create(ended, template="once")
    assert answer["status"] == "Pending"
    assert uid_of(cluster) != before


async def test_the_reaper_deletes_it_though_its_sidecar_runs(
    ended: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await reaper_of(ended).due() == []
    pass_time(monkeypatch, hours=2)
    await until(lambda: reaps_one(ended))
    await until(lambda: nothing_left(cluster))


async def test_a_use_after_its_end_does_not_keep_it(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner = await start_provisioner(ENDED_TTL="60")
    await create(provisioner, idle_timeout_seconds=100_000)
    cluster.put_pod_into("deer-flow", "sandbox-a", "failed")

    async def is_told() -> bool:
        return bool((await get_sandbox(provisioner))["status"] == "Failed")

    await until(is_told)
    pass_time(monkeypatch, seconds=50)
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200
    pass_time(monkeypatch, seconds=100)
    await until(lambda: reaps_one(provisioner))
