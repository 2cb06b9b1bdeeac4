"""CLUSTERS_FILE with two API servers and a real kubectl: at the start, and when the file changes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes.errors import StartupError
from tests.audit import CLUSTERS
from tests.contract.cluster_files import change, create_on, entry, units_of, write
from tests.contract.service import StartProvisioner
from tests.contract.test_clusters import NONE, becomes, clusters_of
from tests.waiting import until

# The file is followed by the tests themselves, except where a test sets the interval.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, ready_believed=0.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


async def test_each_cluster_of_the_file_has_its_own_sandboxes_and_state(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    entries = [entry("east", cluster, max_sandboxes=3), entry("west", west, weight=0)]
    service = await start_provisioner(CLUSTERS_FILE=str(write(tmp_path / "clusters.yaml", *entries)))
    assert list(await clusters_of(service)) == ["east", "west"]
    await create_on(service, "west", "a")
    await becomes(service, "west", state="draining", sandboxes={**NONE, "Running": 1}, version="v1.36.2")
    await becomes(service, "east", state="ready", sandboxes=NONE, capacity={"max_sandboxes": 3, "quota": {}})
    assert (len(west.objects("Pod")), len(cluster.objects("Pod"))) == (1, 0)


async def test_a_cluster_that_is_away_changes_nothing_for_the_others(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    west.faults.refuse()
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    await becomes(service, "west", state="unreachable", last_error="The cluster can't be reached")
    await becomes(service, "east", state="ready", last_error=None)
    await create_on(service, "east", "a")
    west.faults.clear()
    await becomes(service, "west", state="ready")


async def test_the_contexts_of_one_kubeconfig_are_several_clusters_with_a_cache_each(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    both: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    for name, one in (("east", cluster), ("west", west)):
        config = yaml.safe_load(one.kubeconfig.read_text())
        both["clusters"].append({"name": name, "cluster": config["clusters"][0]["cluster"]})
        both["users"].append({"name": name, "user": config["users"][0]["user"]})
        both["contexts"].append({"name": f"{name}-1", "context": {"cluster": name, "user": name}})
    kubeconfig = tmp_path / "both"
    kubeconfig.write_text(yaml.safe_dump(both))
    path = write(tmp_path / "clusters.yaml", *({"name": name, "context": f"{name}-1"} for name in ("east", "west")))
    service = await start_provisioner(CLUSTERS_FILE=str(path), KUBECONFIG_PATH=str(kubeconfig))
    for name, one in (("east", cluster), ("west", west)):
        await create_on(service, name, name)
        assert [pod["metadata"]["name"] for pod in one.objects("Pod")] == [f"sandbox-{name}"]
    folders = [folder for folder in tmp_path.glob("*/*/cache") if folder.parent.name in {"east", "west"}]
    assert len(folders) == 2


async def test_all_clusters_that_cannot_be_used_are_named_by_one_error(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "clusters.yaml",
        entry("good", cluster),
        {"name": "away", "kubeconfig": "/nowhere/config"},
        entry("other", cluster, context="prod"),
        entry("bare", cluster, templates_dir="/nowhere/templates"),
    )
    with pytest.raises(StartupError) as caught:
        await start_provisioner(CLUSTERS_FILE=str(path))
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Cluster away", "Cluster other", "Cluster bare"]
    assert lines[0].startswith("Cluster away: Kubeconfig not found at /nowhere/config.")
    assert lines[1] == f"Cluster other: Kubeconfig {cluster.kubeconfig} has no usable context prod."
    assert "/nowhere/templates" in lines[2]


async def test_a_bad_file_or_none_stops_the_start(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    path = write(tmp_path / "clusters.yaml", {"name": "A"}, {"weight": -1})
    with pytest.raises(StartupError) as caught:
        await start_provisioner(CLUSTERS_FILE=str(path))
    assert str(caught.value).splitlines()[0] == f"CLUSTERS_FILE {path} can't be used:"
    assert len(str(caught.value).splitlines()) == 4
    path.unlink()
    with pytest.raises(StartupError, match="It can't be read: No such file or directory"):
        await start_provisioner(CLUSTERS_FILE=str(path))


@pytest.mark.deadlines(clusters_poll=0.05)
async def test_a_cluster_joins_and_an_empty_one_leaves_while_the_service_runs(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    joined, left = [], []
    units_of(service).joined.connect(lambda unit: joined.append(unit.name))
    units_of(service).leaving.connect(lambda unit: left.append(unit.name))
    write(path, entry("west", west), entry("east", cluster))
    await until(lambda: joined == ["west"])
    await becomes(service, "west", state="ready", sandboxes=NONE)
    assert list(await clusters_of(service)) == ["west", "east"]
    unit = units_of(service).units["west"]
    write(path, entry("east", cluster))
    await until(lambda: left == ["west"])
    assert list(await clusters_of(service)) == ["east"]
    # Its watches have ended.
    await until(lambda: unit.cluster.informer_state.watching == 0)
    await becomes(service, "east", state="ready")


async def test_a_cluster_with_sandboxes_stays_until_the_file_has_said_that_it_is_lost(
    cluster: Cluster,
    west: Cluster,
    start_provisioner: StartProvisioner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    east = entry("east", cluster)
    path = write(tmp_path / "clusters.yaml", east, entry("west", west))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    await create_on(service, "west", "a")
    for _ in range(3):
        await change(service, path, east)
    assert list(await clusters_of(service)) == ["east", "west"]
    (said,) = errors(caplog)
    assert "Cluster west has sandboxes: to take it out, first set `lost: true` in its entry." in said
    await create_on(service, "west", "b")
    await change(service, path, east, entry("west", west, lost=True))
    assert list(await clusters_of(service)) == ["east", "west"]
    await change(service, path, east)
    assert list(await clusters_of(service)) == ["east"]
    assert len(west.objects("Pod")) == 2


async def test_a_cluster_that_cannot_be_asked_is_not_taken_out(
    cluster: Cluster,
    west: Cluster,
    start_provisioner: StartProvisioner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    west.faults.answer(500)
    await change(service, path, entry("east", cluster))
    assert list(await clusters_of(service)) == ["east", "west"]
    assert "Cluster west can't be asked whether it has sandboxes" in errors(caplog)[0]
    west.faults.clear()
    await units_of(service).follow_once()
    assert list(await clusters_of(service)) == ["east"]


async def test_a_bad_change_is_logged_once_and_the_old_file_stays_in_force(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    path.write_text("- {name: East")
    for _ in range(3):
        await units_of(service).follow_once()
    assert list(await clusters_of(service)) == ["east"]
    (said,) = errors(caplog)
    assert said.startswith(f"CLUSTERS_FILE {path} can't be used:\n  It can't be read: it is not valid YAML")
    assert said.endswith("Its previous content stays in force.")
    path.unlink()
    await units_of(service).follow_once()
    assert "No such file or directory" in errors(caplog)[1]
    await change(service, path, entry("east", cluster, weight=0))
    await becomes(service, "east", state="draining")
    assert len(errors(caplog)) == 2


async def test_a_cluster_that_cannot_be_used_joins_when_its_kubeconfig_is_there(
    cluster: Cluster,
    west: Cluster,
    start_provisioner: StartProvisioner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    later = tmp_path / "later"
    await change(service, path, entry("east", cluster, weight=0), {"name": "west", "kubeconfig": str(later)})
    assert list(await clusters_of(service)) == ["east"]
    assert units_of(service).units["east"].entry.weight == 1
    assert f"Cluster west: Kubeconfig not found at {later}." in errors(caplog)[0]
    later.write_bytes(west.kubeconfig.read_bytes())
    os.utime(path)
    await units_of(service).follow_once()
    await becomes(service, "west", state="ready")
    assert units_of(service).units["east"].entry.weight == 0


async def test_new_settings_of_a_cluster_are_used_without_a_restart_of_the_service(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    await create_on(service, "east", "a")
    old = units_of(service).units["east"]
    await change(service, path, entry("east", cluster, max_sandboxes=7))
    await becomes(service, "east", state="ready", sandboxes={**NONE, "Running": 1})
    assert (await clusters_of(service))["east"]["capacity"]["max_sandboxes"] == 7
    await until(lambda: old.cluster.informer_state.watching == 0)


async def test_a_lost_cluster_that_cannot_be_used_is_listed_and_joins_when_it_is_back(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    gone = {"name": "west", "kubeconfig": str(later)}
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), {**gone, "lost": True})
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    found = await clusters_of(service)
    assert list(found) == ["east", "west"]
    assert found["west"]["state"] == "unreachable"
    assert found["west"]["last_error"].startswith(f"Kubeconfig not found at {later}.")
    later.write_bytes(west.kubeconfig.read_bytes())
    await change(service, path, entry("east", cluster), gone)
    await becomes(service, "west", state="ready", last_error=None)


async def test_the_end_of_the_service_ends_all_its_clusters(
    cluster: Cluster, west: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west))
    service = await start_provisioner(CLUSTERS_FILE=str(path))
    units = units_of(service).units.values()
    await until(lambda: all(unit.cluster.informer_state.watching == 3 for unit in units))
    await service.client.close()
    assert [unit.cluster.informer_state.watching for unit in units] == [0, 0]
