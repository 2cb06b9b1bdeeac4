"""Fixtures: the service over real HTTP, with an in-memory cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp.typedefs import Handler, Middleware
from pytest_aiohttp.plugin import AiohttpClient

from sandboxes import errors
from sandboxes.access.keys import ProcessKey
from sandboxes.api.callers import Callers
from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.deadlines import Deadlines
from sandboxes.kubectl.client import Kubectl
from sandboxes.objects import KubeObject
from sandboxes.service.sandboxes import SandboxService
from sandboxes.settings import Settings
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.templates import Template
from tests.fakes import FakeCluster

URL = "/api/sandboxes"
Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
MakeApp = Callable[..., web.Application]
RETRIED = (errors.AlreadyThere, errors.ConnectionFailed, errors.ServerFailed, errors.ServiceAccountMissing)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between retries to a tenth, with the same number of retries."""
    for error in RETRIED:
        monkeypatch.setattr(error, "pauses", tuple(pause / 10 for pause in error.pauses))


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def make_app(
    cluster: FakeCluster, make_settings: Callable[..., Settings], template: Template, deadlines: Deadlines
) -> MakeApp:
    """Return a function that builds the application for the given environment, as `make_client` starts it."""

    def make(
        templates: Mapping[str, Template] | None = None,
        policies: tuple[KubeObject, ...] = (),
        *,
        in_pod: bool = False,
        peer: str | None = None,
        **variables: object,
    ) -> web.Application:
        settings = make_settings(**variables)
        kubectl = Kubectl(
            cluster, max_processes=settings.kubectl_max_processes, max_waiting=settings.kubectl_max_waiting
        )
        one = Cluster(kubectl, NoInformer(), settings.k8s_namespace, policies, deadlines=deadlines)
        keys = ProcessKey() if settings.has_gateway else None
        lifecycle = SandboxService(one, templates or {DEFAULT_TEMPLATE: template}, settings, keys)
        app = create_app(lifecycle, settings, callers=Callers(settings, in_pod=in_pod))
        if peer is not None:
            app.middlewares.insert(0, connected_from(peer))
        return app

    return make


@pytest.fixture
def make_client(aiohttp_client: AiohttpClient, make_app: MakeApp) -> MakeClient:
    """Return a function that starts the service with the given environment and returns a client.

    `in_pod`: whether the service detects a Pod; `peer`: the peer address of all connections.
    """

    async def make(*arguments: Any, **options: Any) -> Client:
        return await aiohttp_client(make_app(*arguments, **options))

    return make


def connected_from(peer: str) -> Middleware:
    """Return a middleware that replaces the peer address of all requests."""

    @web.middleware
    async def replace(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(remote=peer))

    return replace


@pytest.fixture
async def client(make_client: MakeClient) -> Client:
    return await make_client()
