"""`/api/sandboxes/{id}/urls`: bodies, errors and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from sandboxes.access import tokens
from sandboxes.access.gateway import subject_of
from sandboxes.access.keys import ProcessKey
from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.expiry import present, text_of
from sandboxes.kubectl.client import Kubectl
from sandboxes.service.sandboxes import SandboxService
from sandboxes.settings import Settings
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.templates import Template
from tests.api.client import create
from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster

URLS = f"{URL}/a/urls"
BASE = "http://127.0.0.1:8003/s/a/"

MakeBehind = Callable[..., Awaitable[Client]]


@pytest.fixture
def keys() -> ProcessKey:
    return ProcessKey()


@pytest.fixture
def make_behind(
    cluster: FakeCluster,
    keys: ProcessKey,
    make_settings: Callable[..., Settings],
    template: Template,
    aiohttp_client: AiohttpClient,
) -> MakeBehind:
    """Return a function that starts a service with the gateway, and returns a client."""

    async def make(**variables: Any) -> Client:
        settings = make_settings(**{"SANDBOX_ACCESS": "gateway", **variables})
        kubectl = Kubectl(cluster, max_processes=2, max_waiting=10)
        one = Cluster(kubectl, NoInformer(), settings.k8s_namespace)
        service = SandboxService(one, {DEFAULT_TEMPLATE: template}, settings, keys)
        return await aiohttp_client(create_app(service, settings))

    return make


@pytest.fixture
async def client(make_behind: MakeBehind) -> Client:
    client = await make_behind()
    await create(client)
    return client


def grant_of(url: str, cluster: FakeCluster, settings: Settings, keys: ProcessKey) -> tokens.Grant | None:
    """Return what the URL permits now."""
    assert url.startswith(BASE)
    pod = cluster.pod("a")
    assert pod is not None
    return tokens.check(url.removeprefix(BASE), subject_of(pod, settings), keys, present().timestamp())


@pytest.mark.parametrize("body", [b"", b"{}", b'{"port": null, "ttl_seconds": null}', b' {"future": 1}\n'])
async def test_without_a_wish_the_url_is_that_of_the_sandbox(client: Client, body: bytes) -> None:
    response = await client.post(URLS, data=body)
    own = (await (await client.get(f"{URL}/a")).json())["sandbox_url"]
    assert response.status == 200
    assert await response.json() == {"url": own, "port": 8080, "expires_at": None}


async def test_a_url_is_for_its_port_and_until_its_end(
    client: Client, cluster: FakeCluster, make_settings: Callable[..., Settings], keys: ProcessKey
) -> None:
    before = present()
    made = await (await client.post(URLS, json={"port": "3000", "ttl_seconds": 600})).json()
    grant = grant_of(made["url"], cluster, make_settings(SANDBOX_ACCESS="gateway"), keys)
    assert grant is not None
    assert (made["port"], grant.port) == (3000, 3000)
    assert grant.expires_at is not None
    assert 0 <= grant.expires_at - int(before.timestamp()) - 600 <= 60
    assert made["expires_at"] == text_of(before.fromtimestamp(grant.expires_at, before.tzinfo))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("port", value) for value in (0, 65536, -1, "http", 80.5, [80])),
        *(("ttl_seconds", value) for value in (0, -5, 10**9, "soon")),
    ],
)
async def test_a_port_or_an_end_that_can_not_be_is_422(client: Client, field: str, value: Any) -> None:
    response = await client.post(URLS, json={field: value})
    (problem,) = (await response.json())["detail"]
    assert response.status == 422
    assert (problem["loc"], problem["input"]) == (["body", field], value)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"nonsense", b'{"port": NaN}'])
async def test_a_body_that_is_no_json_object_is_422(client: Client, body: bytes) -> None:
    response = await client.post(URLS, data=body)
    assert response.status == 422
    assert isinstance((await response.json())["detail"], list)


async def test_the_ports_of_other_containers_in_the_pod_are_422(client: Client, cluster: FakeCluster) -> None:
    pod = cluster.pod("a")
    assert pod is not None
    pod["spec"]["containers"] += [
        {"name": "lark-cli-broker", "image": "b"},
        {"name": "proxy", "image": "p", "ports": [{"containerPort": 9000}]},
    ]
    for port, owner in ((8788, "lark-cli-broker"), (9000, "proxy")):
        response = await client.post(URLS, json={"port": port})
        (problem,) = (await response.json())["detail"]
        assert response.status == 422
        assert problem["loc"] == ["body", "port"]
        assert problem["msg"] == f"This port belongs to another container of the sandbox's Pod, {owner}"
    assert (await client.post(URLS, json={"port": 8080})).status == 200


@pytest.mark.parametrize("sandbox_id", ["never", "Not-An-Id"])
@pytest.mark.parametrize("method", ["post", "delete"])
async def test_an_unknown_sandbox_is_404(client: Client, method: str, sandbox_id: str) -> None:
    response = await getattr(client, method)(f"{URL}/{sandbox_id}/urls")
    assert response.status == 404
    assert (await response.json())["status"] == "NotFound"


async def test_what_creates_may_ask_for_is_no_limit_of_urls(make_behind: MakeBehind) -> None:
    client = await make_behind(ALLOW_FIELDS="none")
    await create(client)
    assert (await client.post(URLS, json={"ttl_seconds": 60})).status == 200


@pytest.mark.parametrize("method", ["post", "delete"])
async def test_the_routes_need_the_key(make_behind: MakeBehind, method: str) -> None:
    client = await make_behind(PROVISIONER_API_KEY="k3y", SANDBOX_GATEWAY_URL="http://g:8003")
    assert (await getattr(client, method)(URLS)).status == 401


async def test_urls_that_were_made_invalid_permit_nothing_and_the_answer_has_a_new_one(
    client: Client, cluster: FakeCluster, make_settings: Callable[..., Settings], keys: ProcessKey
) -> None:
    settings = make_settings(SANDBOX_ACCESS="gateway")
    old = (await (await client.get(f"{URL}/a")).json())["sandbox_url"]
    further = (await (await client.post(URLS, json={"port": 3000})).json())["url"]
    assert all(grant_of(url, cluster, settings, keys) for url in (old, further))
    response = await client.delete(URLS)
    answer: Mapping[str, Any] = await response.json()
    assert response.status == 200
    assert (answer["sandbox_id"], answer["sandbox_url"] == old) == ("a", False)
    assert [grant_of(url, cluster, settings, keys) for url in (old, further)] == [None, None]
    assert grant_of(answer["sandbox_url"], cluster, settings, keys) == tokens.Grant(8080, None)
    again = (await (await client.delete(URLS)).json())["sandbox_url"]
    assert again not in (old, answer["sandbox_url"])


async def test_a_slash_at_the_end_is_accepted(client: Client) -> None:
    assert (await client.post(f"{URLS}/")).status == 200
