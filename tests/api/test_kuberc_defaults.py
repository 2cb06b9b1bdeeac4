"""Defaults of a user's kuberc that no flag overrides, such as a dry run: the service never responds with 200."""

from __future__ import annotations

import copy

import pytest

from sandboxes.spec.templates import Template
from tests.api.client import create
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster

UNREADABLE = {"detail": "The provisioner can't read kubectl's output"}


async def request(client: Client, method: str, path: str, **options: object) -> tuple[int, object]:
    response = await client.request(method, path, json=options or None)
    return response.status, await response.json()


async def test_a_create_that_was_a_dry_run_is_503_and_logs_the_output(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.defaults = {"apply"}
    assert await request(client, "POST", URL, sandbox_id="a") == (503, UNREADABLE)
    assert cluster.objects == {}
    assert "kubectl did not print objects that the API server has stored" in caplog.text
    assert '"name": "sandbox-a"' in caplog.text
    cluster.defaults.clear()
    await create(client)


async def test_an_interactive_delete_is_503_and_deletes_nothing(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    await create(client)
    cluster.defaults = {"delete"}
    assert await request(client, "DELETE", f"{URL}/a") == (503, UNREADABLE)
    assert cluster.pod("a")
    assert cluster.service("a")
    assert "deletion is cancelled" in caplog.text
    assert (await client.get(f"{URL}/a")).status == 200


async def test_a_renewal_that_was_a_dry_run_is_503(client: Client, cluster: FakeCluster) -> None:
    await create(client, ttl_seconds=60)
    before = copy.deepcopy(cluster.objects)
    cluster.defaults = {"apply"}
    assert await request(client, "POST", f"{URL}/a/renew", ttl_seconds=3600) == (503, UNREADABLE)
    assert (await request(client, "POST", URL, sandbox_id="a", ttl_seconds=3600))[0] == 503
    assert cluster.objects == before


async def test_an_adoption_that_was_a_dry_run_is_503(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    pod = cluster.pod("a")
    assert pod is not None
    # Without the marks of this service, as its predecessor created them: the create adopts them by an apply.
    for obj in cluster.objects.values():
        obj["metadata"]["annotations"] = {}
        obj["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    cluster.defaults = {"apply"}
    assert (await request(client, "POST", URL, sandbox_id="a"))[0] == 503
    cluster.defaults.clear()
    assert (await request(client, "POST", URL, sandbox_id="a"))[0] == 200


@pytest.mark.parametrize("verb", ["create", "apply"])
async def test_a_dry_run_of_template_objects_is_503_and_leaves_nothing(
    make_client: MakeClient, cluster: FakeCluster, template: Template, verb: str
) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-example-config"}, "data": {}}
    other = {**config, "metadata": {"name": "sandbox-example-other"}}
    client = await make_client(templates={"default": Template(template.pod, template.service, (config, other))})
    cluster.defaults = {verb}
    assert await request(client, "POST", URL, sandbox_id="a") == (503, UNREADABLE)
    assert cluster.objects == {}
    cluster.defaults.clear()
    await create(client)
    assert len(cluster.objects) == 4


async def test_empty_output_for_missing_objects_is_503_instead_of_404(client: Client, cluster: FakeCluster) -> None:
    cluster.defaults = {"get"}
    for method, path in (("GET", f"{URL}/a"), ("DELETE", f"{URL}/a"), ("POST", f"{URL}/a/touch")):
        assert await request(client, method, path) == (503, UNREADABLE)
    assert await request(client, "POST", URL, sandbox_id="a") == (503, UNREADABLE)
    assert cluster.objects == {}


@pytest.mark.deadlines(ready_believed=0)
async def test_readiness_requires_ok_from_the_api_server(client: Client, cluster: FakeCluster) -> None:
    cluster.print_next("get", b"")
    status, body = await request(client, "GET", "/readyz")
    assert (status, UNREADABLE["detail"] in str(body)) == (503, True)
    assert (await request(client, "GET", "/readyz"))[0] == 200
