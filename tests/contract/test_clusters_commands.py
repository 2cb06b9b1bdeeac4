"""`check`, `render` and `reap` with CLUSTERS_FILE: as processes, and for what needs none, in the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.cli import check_each, main
from sandboxes.settings import Settings
from tests.audit import CLUSTERS
from tests.contract.cluster_files import entry, write
from tests.contract.processes import PROVISIONER, environment, run
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = pytest.mark.role(CLUSTERS)

RENDER = ("render", "--sandbox-id", "a", "--thread-id", "t")


@pytest.fixture
async def clusters(cluster: Cluster, west: Cluster, tmp_path: Path) -> Path:
    cluster.make_namespace("deer-flow")
    west.make_namespace("sandboxes")
    west_entry = entry("west", west, namespace="sandboxes", context="devcluster", access="cluster-ip")
    return write(tmp_path / "clusters.yaml", entry("east", cluster), west_entry)


async def command(tmp_path: Path, *arguments: str, clusters: Path) -> tuple[int, str, str]:
    return await run(*PROVISIONER, *arguments, environ=environment(tmp_path, CLUSTERS_FILE=str(clusters)))


@pytest.fixture
def variables(tmp_path: Path, clusters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of the command in the test's own process."""
    for name, value in environment(tmp_path, CLUSTERS_FILE=str(clusters)).items():
        monkeypatch.setenv(name, value)


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(variables: None, capsys: pytest.CaptureFixture[str]) -> Here:  # noqa: ARG001
    """Return a function that runs a command in the test's own process."""

    def run_here(*arguments: str) -> tuple[int, str, str]:
        return main(arguments), *capsys.readouterr()

    return run_here


async def test_check_has_the_lines_of_each_cluster_below_its_name(
    clusters: Path, cluster: Cluster, west: Cluster, tmp_path: Path
) -> None:
    code, printed, stderr = await command(tmp_path, "check", clusters=clusters)
    assert (code, stderr) == (0, "")
    first, _, second = printed.partition("\n\n")
    for part, name, one, namespace in (
        (first, "east", cluster, "deer-flow"),
        (second, "west", west, "sandboxes"),
    ):
        lines = part.splitlines()
        assert lines[0] == f"cluster {name}"
        assert any(line.startswith("ok") and one.url in line for line in lines)
        assert f"ok            namespace: {namespace}" in lines
        assert not any("cluster" in line for line in lines if line.startswith("FAIL"))


@pytest.mark.usefixtures("variables")
async def test_the_exit_code_of_check_is_that_of_the_worst_cluster(
    clusters: Path, cluster: Cluster, west: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.faults.refuse()
    assert await check_each(Settings.load()) == 2
    assert "ok            namespace: sandboxes" in capsys.readouterr().out
    nowhere = entry("west", west, templates_dir="/nowhere/templates")
    write(clusters, nowhere, {**entry("east", cluster), "lost": True})
    assert await check_each(Settings.load()) == 2
    printed = capsys.readouterr().out
    assert "FAIL          templates: " in printed
    assert "cluster east (lost: its checks do not count)" in printed
    write(clusters, entry("west", west, namespace="missing"), {**entry("east", cluster), "lost": True})
    assert await check_each(Settings.load()) == 1


async def test_render_prints_the_objects_for_the_first_or_the_named_cluster(here: Here) -> None:
    for arguments, namespace, kind in (
        ((), "deer-flow", "NodePort"),
        (("--cluster", "west"), "sandboxes", "ClusterIP"),
    ):
        code, printed, stderr = here(*RENDER, *arguments)
        assert (code, stderr) == (0, "")
        pod, service = json.loads(printed)["items"]
        assert (pod["metadata"]["namespace"], service["spec"]["type"]) == (namespace, kind)


async def test_a_name_that_no_cluster_has_is_refused_with_the_names_that_exist(
    here: Here, clusters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = "provisioner: Cluster north does not exist. Known clusters: east, west.\n"
    assert here(*RENDER, "--cluster", "north") == (1, "", refused)
    assert await command(tmp_path, "reap", "--cluster", "north", clusters=clusters) == (1, "", refused)
    monkeypatch.delenv("CLUSTERS_FILE")
    refused = "provisioner: Cluster north does not exist. Known clusters: default.\n"
    assert here(*RENDER, "--cluster", "north") == (1, "", refused)
    assert here(*RENDER, "--cluster", "default")[0] == 0


async def put_expired(here: Here, cluster: Cluster, name: str, sandbox_id: str, tmp_path: Path) -> None:
    """Create the objects of a sandbox of the named cluster that expired long ago."""
    _, printed, _ = here("render", "--sandbox-id", sandbox_id, "--thread-id", "t", "--cluster", name)
    objects = json.loads(printed)
    for one in objects["items"]:
        one["metadata"]["annotations"]["provisioner/expires-at"] = "2020-01-01T00:00:00Z"
    created = await Kubectl(cluster.kubeconfig, tmp_path)("create", "-f", "-", stdin=objects)
    assert created.rc == 0, created.stderr


async def test_reap_deletes_in_all_clusters_or_in_the_named_one(
    here: Here, clusters: Path, cluster: Cluster, west: Cluster, tmp_path: Path
) -> None:
    await put_expired(here, cluster, "east", "a", tmp_path)
    await put_expired(here, west, "west", "b", tmp_path)
    code, printed, stderr = await command(tmp_path, "reap", "--dry-run", clusters=clusters)
    assert (code, stderr) == (0, "")
    assert [line.partition(" it ")[0] for line in printed.splitlines()] == ["east: a:", "west: b:"]
    code, printed, _ = await command(tmp_path, "reap", "--cluster", "west", clusters=clusters)
    assert (code, printed.startswith("west: b: it expired at ")) == (0, True)
    await until(lambda: west.objects("Pod") == [])
    assert len(cluster.objects("Pod")) == 1


async def test_reap_goes_on_when_a_cluster_is_away_and_says_so(
    here: Here, clusters: Path, cluster: Cluster, west: Cluster, tmp_path: Path
) -> None:
    await put_expired(here, west, "west", "b", tmp_path)
    cluster.faults.refuse()
    code, printed, stderr = await command(tmp_path, "reap", clusters=clusters)
    assert (code, printed.startswith("west: b: it expired at ")) == (1, True)
    assert stderr.startswith("provisioner: Cluster east: The cluster can't be reached")
    write(clusters, entry("east", cluster, lost=True), entry("west", west, namespace="sandboxes"))
    assert (await command(tmp_path, "reap", clusters=clusters))[0] == 0
