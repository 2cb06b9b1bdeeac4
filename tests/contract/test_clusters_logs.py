"""The log of a service with CLUSTERS_FILE: a line about one cluster names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.contract.cluster_files import entry, write
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.waiting import until

pytestmark = pytest.mark.role("components/clusters")


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


@pytest.mark.parametrize("with_file", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_line_about_a_cluster_names_it_only_with_the_file(
    cluster: Cluster, west: Cluster, tmp_path: Path, *, with_file: bool
) -> None:
    path = write(tmp_path / "clusters.yaml", entry("east", cluster), entry("west", west, namespace="other"))
    where = {"CLUSTERS_FILE": str(path)} if with_file else {"KUBECONFIG_PATH": str(cluster.kubeconfig)}
    port, log = free_port(), tmp_path / "log"
    environ = environment(tmp_path, LISTEN_PORT=str(port), LOG_FORMAT="json", NODE_HOST="127.0.0.1", **where)
    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
        # From a task of the live view, long after the start.
        cluster.faults.refuse()
        cluster.end_watches()
        await until(
            lambda: any("watch" in str(line["logger"]) or "reflector" in str(line["logger"]) for line in lines(log))
        )
    found = lines(log)
    named = {str(line["event"]): line["cluster"] for line in found if "cluster" in line}
    if not with_file:
        assert named == {}
        return
    assert named["namespace deer-flow created"] == "east"
    assert named["namespace other created"] == "west"
    of_view = {line.get("cluster") for line in found if "reflector" in str(line["logger"])}
    assert of_view == {"east"}
    of_service = [line for line in found if str(line["event"]).startswith("listening on")]
    assert ["cluster" in line for line in of_service] == [False]
