"""Log lines of requests, over HTTP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from sandboxes import logs
from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.kubectl.client import Kubectl
from sandboxes.service.sandboxes import SandboxService
from sandboxes.settings import Settings
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.templates import Template
from tests.api.conftest import URL, Client
from tests.api.server import ServiceServer
from tests.fakes import FakeCluster
from tests.logs import Log
from tests.waiting import until


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """Everything that is logged, as the service formats it."""
    caplog.set_level(logging.DEBUG)
    log = Log(as_json=True)
    root = logging.getLogger()
    root.addHandler(log.handler)
    yield log
    root.removeHandler(log.handler)


@pytest.fixture
async def client(
    cluster: FakeCluster, make_settings: Callable[..., Settings], template: Template
) -> AsyncIterator[Client]:
    settings = make_settings()
    kubectl = Kubectl(cluster, max_processes=2, max_waiting=2)
    lifecycle = SandboxService(
        Cluster(kubectl, NoInformer(), settings.k8s_namespace), {DEFAULT_TEMPLATE: template}, settings
    )
    async with TestClient(ServiceServer(create_app(lifecycle, settings))) as client:
        yield client


async def access_line(log: Log, path: str, status: int) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        lines = [event for event in log.events if event["logger"] == "aiohttp.access"]
        return [line for line in lines if (line["path"], line["status"]) == (path, status)]

    await until(found)
    return found()[-1]


async def test_log_lines_of_a_request_have_its_request_id_and_sandbox_id(client: Client, log: Log) -> None:
    await client.post(URL, json={"sandbox_id": "a"}, headers={"X-Request-ID": "r-1"})
    await access_line(log, URL, 200)
    await client.get(f"{URL}/b", headers={"X-Request-ID": "r-2"})
    await access_line(log, f"{URL}/b", 404)
    owned = [event for event in log.events if event["logger"].startswith(("sandboxes", "aiohttp.access"))]
    calls = [event for event in owned if event["event"].startswith("kubectl ")]
    assert calls
    assert {event["level"] for event in calls} == {"debug"}
    assert all(event["event"].endswith(" ms") for event in calls)
    assert {(event["request_id"], event.get("sandbox_id")) for event in owned} == {("r-1", "a"), ("r-2", "b")}


async def test_the_access_log_level_depends_on_the_status(client: Client, cluster: FakeCluster, log: Log) -> None:
    await client.get(URL)
    assert (await access_line(log, URL, 200))["level"] == "info"
    await client.get(f"{URL}/a")
    assert (await access_line(log, f"{URL}/a", 404))["level"] == "info"
    cluster.answer_next("get", "refused")
    cluster.answer_next("get", "refused")
    cluster.answer_next("get", "refused")
    await client.get(f"{URL}/a")
    assert (await access_line(log, f"{URL}/a", 503))["level"] == "error"


@pytest.mark.parametrize("path", sorted(logs.QUIET_PATHS))
async def test_probes_and_scrapes_are_logged_at_debug(client: Client, log: Log, path: str) -> None:
    await client.get(path)
    assert (await access_line(log, path, 200))["level"] == "debug"


async def test_env_values_in_kubectls_stderr_are_masked_in_the_log(
    client: Client, cluster: FakeCluster, log: Log
) -> None:
    message = 'admission webhook "w" denied the request: no s3cret-value here'
    cluster.say_next("apply", f"Error from server: {message}\n")
    response = await client.post(URL, json={"sandbox_id": "a", "env": {"A": "s3cret-value"}})
    assert response.status == 502
    await access_line(log, URL, 502)
    assert "s3cret" not in log.written.getvalue()
    assert any("no (hidden) here" in event["event"] for event in log.events)
