"""The log of requests to several clusters, as a process: each line about one cluster names it."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from tests.contract.fleet import FIELDS, id_of, write
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.role("components/clusters")]

# The fields of a service without a list of clusters, as before there was one.
OF_ONE_CLUSTER = {
    "event", "timestamp", "level", "logger", "request_id", "sandbox_id", "method", "path", "status", "duration_ms",
    "exception",
}  # fmt: skip
HEADERS = {"X-API-Key": "k3y"}


async def lines_of_requests(
    tmp_path: Path, requests: dict[str, tuple[str, str, dict[str, object] | None]], **variables: str
) -> dict[str, list[dict[str, object]]]:
    """Run the service, and return the log lines of each request, by its id; those of none by an empty text."""
    port, log = free_port(), tmp_path / "log"
    environ = environment(
        tmp_path, LISTEN_PORT=str(port), LOG_FORMAT="json", LOG_LEVEL="DEBUG", NODE_HOST="127.0.0.1",
        ALLOW_FIELDS=FIELDS, **variables,
    )  # fmt: skip

    def found() -> list[dict[str, object]]:
        return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]

    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            for name, (verb, path, body) in requests.items():
                url = f"http://127.0.0.1:{port}{path}"
                await session.request(verb, url, json=body, headers={"X-Request-ID": name})
        # The line of the access log is the last one of a request.
        await until(
            lambda: (
                requests.keys() <= {line.get("request_id") for line in found() if line["logger"] == "aiohttp.access"}
            )
        )
    lines: dict[str, list[dict[str, object]]] = {"": []}
    for line in found():
        lines.setdefault(str(line.get("request_id", "")), []).append(line)
    return lines


def calls(lines: list[dict[str, object]]) -> list[tuple[object, str]]:
    """Return the lines about kubectl: the cluster in each, and the event."""
    return [(line.get("cluster"), str(line["event"])) for line in lines if "kubectl" in str(line["logger"])]


async def test_the_lines_of_a_request_and_of_its_kubectls_name_the_cluster(
    clusters: dict[str, Cluster], tmp_path: Path
) -> None:
    path = write(tmp_path / "clusters.yaml", clusters)
    there, moved = id_of("west"), id_of("east")
    lines = await lines_of_requests(
        tmp_path,
        {
            "create": ("POST", "/api/sandboxes", {"sandbox_id": there, "wait_seconds": 20}),
            "named": ("POST", "/api/sandboxes", {"sandbox_id": moved, "cluster": "west"}),
            "get": ("GET", f"/api/sandboxes/{there}", None),
            "diagnostics": ("GET", f"/api/sandboxes/{there}/diagnostics", None),
            "clusters": ("GET", "/api/clusters", None),
            "delete": ("DELETE", f"/api/sandboxes/{moved}", None),
        },
        CLUSTERS_FILE=str(path),
    )
    for name in ("create", "get", "diagnostics"):
        assert {cluster for cluster, _ in calls(lines[name])} <= {"west"}, name
        (access,) = (line for line in lines[name] if line["logger"] == "aiohttp.access")
        assert access["cluster"] == "west"
    # Both are asked, and each line says which.
    for name in ("named", "delete", "clusters"):
        assert {cluster for cluster, _ in calls(lines[name])} == {"east", "west"}, name
    kubeconfigs = {name: str(one.kubeconfig) for name, one in clusters.items()}
    for cluster, event in [one for found in lines.values() for one in calls(found)]:
        assert not any(config in event for name, config in kubeconfigs.items() if name != cluster), event
    services = [line for found in lines.values() for line in found if ".service." in str(line["logger"])]
    assert {line.get("cluster") for line in services if "sandbox" in str(line["event"])} == {"west"}


async def test_the_lines_about_a_cluster_that_is_away_name_it(clusters: dict[str, Cluster], tmp_path: Path) -> None:
    path = write(tmp_path / "clusters.yaml", clusters)
    clusters["west"].faults.refuse()
    lines = await lines_of_requests(
        tmp_path,
        {
            **{f"get-{number}": ("GET", f"/api/sandboxes/{id_of('west', number)}", None) for number in range(3)},
            "list": ("GET", "/api/sandboxes", None),
        },
        CLUSTERS_FILE=str(path),
    )
    for number in range(3):
        (access,) = (line for line in lines[f"get-{number}"] if line["logger"] == "aiohttp.access")
        assert (access["status"], access["cluster"]) == (503, "west")
    about = [line for found in lines.values() for line in found if "cluster west can't be" in str(line["event"])]
    assert about
    assert {line.get("cluster") for line in about} == {"west"}
    (access,) = (line for line in lines["list"] if line["logger"] == "aiohttp.access")
    assert "cluster" not in access


async def test_no_line_of_a_service_without_a_list_has_a_new_field(
    clusters: dict[str, Cluster], tmp_path: Path
) -> None:
    lines = await lines_of_requests(
        tmp_path,
        {
            "create": ("POST", "/api/sandboxes", {"sandbox_id": "a", "wait_seconds": 20}),
            "get": ("GET", "/api/sandboxes/a", None),
            "diagnostics": ("GET", "/api/sandboxes/a/diagnostics", None),
            "clusters": ("GET", "/api/clusters", None),
            "ready": ("GET", "/readyz", None),
            "delete": ("DELETE", "/api/sandboxes/a", None),
        },
        KUBECONFIG_PATH=str(clusters["east"].kubeconfig),
    )
    assert calls(lines["create"])
    assert {key for found in lines.values() for line in found for key in line} <= OF_ONE_CLUSTER
