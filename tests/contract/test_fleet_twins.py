"""Two entries of CLUSTERS_FILE for one cluster and namespace: refused by the address, else noticed by the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes.errors import StartupError
from tests.audit import CLUSTERS
from tests.contract.cluster_files import change, entry, write
from tests.contract.fleet import FIELDS, fleet_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.test_clusters import becomes, clusters_of
from tests.contract.test_clusters_commands import command
from tests.contract.test_clusters_file import errors
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_poll=3600.0, clusters_retry=0.0, ready_believed=0.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]

SAME = "It is the same cluster and namespace as 'east'"


@pytest.fixture
async def east(cluster: Cluster) -> dict[str, Any]:
    cluster.make_namespace("deer-flow")
    return entry("east", cluster)


@pytest.fixture
def again(cluster: Cluster, tmp_path: Path) -> dict[str, Any]:
    """Return an entry for the same cluster, by another kubeconfig and context."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["contexts"][0]["name"] = config["current-context"] = "again"
    path = tmp_path / "again"
    path.write_text(yaml.safe_dump(config))
    return {"name": "again", "kubeconfig": str(path)}


@pytest.fixture
def alias(cluster: Cluster) -> dict[str, Any]:
    """Return an entry for the same cluster, by another address."""
    return entry("alias", cluster, api_server=cluster.url.replace("127.0.0.1", "localhost"))


async def start(start_provisioner: StartProvisioner, path: Path) -> Provisioner:
    return await start_provisioner(CLUSTERS_FILE=str(path), ALLOW_FIELDS=FIELDS)


async def test_a_file_with_one_address_and_namespace_twice_stops_the_start(
    cluster: Cluster,
    east: dict[str, Any],
    again: dict[str, Any],
    start_provisioner: StartProvisioner,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "clusters.yaml", east, again)
    with pytest.raises(StartupError) as caught:
        await start(start_provisioner, path)
    assert f"Clusters east and again are one: namespace deer-flow at {cluster.url}." in str(caught.value)
    # Of an entry that is to go, or of another namespace, it is none.
    for fields in ({"lost": True}, {"namespace": "other"}):
        service = await start(start_provisioner, write(path, east, {**again, **fields}))
        assert list(await clusters_of(service)) == ["east", "again"]


async def test_a_change_of_the_file_to_one_address_twice_is_refused(
    east: dict[str, Any],
    again: dict[str, Any],
    start_provisioner: StartProvisioner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / "clusters.yaml", east)
    service = await start(start_provisioner, path)
    await change(service, path, east, again)
    assert list(await clusters_of(service)) == ["east"]
    (said,) = errors(caplog)
    assert "Clusters east and again are one" in said
    await change(service, path, east, {**again, "lost": True})
    await change(service, path, east, again)
    assert fleet_of(service).directory.homes.names == {"east"}
    assert len(errors(caplog)) == 2
    await change(service, path, east)
    await until(lambda: set(fleet_of(service).clusters) == {"east"})
    await create(service, "a")


async def test_a_second_address_of_a_cluster_is_named_and_gets_no_sandbox(
    cluster: Cluster,
    east: dict[str, Any],
    alias: dict[str, Any],
    start_provisioner: StartProvisioner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / "clusters.yaml", east)
    service = await start(start_provisioner, path)
    await create(service, "a")
    await change(service, path, east, alias)
    await until(lambda: any(SAME in one for one in errors(caplog)))
    listed = (await clusters_of(service))["alias"]
    assert (listed["state"], listed["last_error"].startswith(SAME)) == ("degraded", True)
    await becomes(service, "east", state="ready")
    assert (await (await service.get("/readyz")).json())["checks"]["alias"].startswith(SAME)
    response = await service.post(URL, json={"sandbox_id": "b", "cluster": "alias"})
    answer = (response.status, (await response.json())["detail"])
    assert answer == (503, "Clusters 'east' and 'alias' of the list are one cluster and namespace")
    listing = await (await service.get(URL)).json()
    assert [one["sandbox_id"] for one in listing["sandboxes"]] == ["a"]
    assert "doubled" not in await (await service.get("/api/clusters")).json()
    # The way out that the sentence names.
    await change(service, path, east, {**alias, "lost": True})
    await until(lambda: fleet_of(service).directory.homes.names == {"east"})
    await change(service, path, east)
    await until(lambda: set(fleet_of(service).clusters) == {"east"})
    await create(service, "b")
    assert {one["metadata"]["name"] for one in cluster.objects("Pod")} == {"sandbox-a", "sandbox-b"}
    assert not any("is on several clusters" in one.getMessage() for one in caplog.records)


async def test_check_names_a_cluster_that_was_checked_before(
    east: dict[str, Any],
    again: dict[str, Any],
    alias: dict[str, Any],
    start_provisioner: StartProvisioner,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "clusters.yaml", east)
    await start(start_provisioner, path)
    for other in (again, alias):
        code, printed, _ = await command(tmp_path, "check", clusters=write(path, east, other))
        assert code == 1
        said = "FAIL          list of clusters: this is the same cluster and namespace as east; take one out"
        assert printed.count(said) == 1
    code, printed, _ = await command(tmp_path, "check", clusters=write(path, east, {**again, "lost": True}))
    assert (code, "list of clusters" in printed) == (0, False)
