"""Metrics over HTTP, with an in-memory cluster."""

from __future__ import annotations

import pytest

from sandboxes.service.sandboxes import SandboxService
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster
from tests.metrics import requests, samples, scrape, value


async def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    await client.post(URL, json={"sandbox_id": "a"})
    await client.get(f"{URL}/a")
    for sandbox_id in ("b", "c"):
        await client.get(f"{URL}/{sandbox_id}")
    found = await scrape(client)
    assert requests(found, "POST", "/api/sandboxes", 200) == 1
    assert requests(found, "GET", "/api/sandboxes/{sandbox_id}", 200) == 1
    assert requests(found, "GET", "/api/sandboxes/{sandbox_id}", 404) == 2
    assert value(found, "provisioner_failures_total", kind="SandboxNotFound") == 2
    took = value(found, "provisioner_http_request_seconds_sum", method="POST", route="/api/sandboxes", status="200")
    assert 0 < took < 10


async def test_metric_labels_never_contain_caller_input(client: Client, cluster: FakeCluster) -> None:
    for number in range(20):
        await client.get(f"/caller-{number}")
        await client.get(f"{URL}/caller-{number}", headers={"X-Request-ID": f"caller-{number}"})
        await client.request("PROPFIND", URL)
        await client.post(URL, json={"sandbox_id": f"caller-{number}", "user_id": f"caller{number}"})
    assert len(cluster.objects) == 40
    response = await client.get("/metrics")
    text = await response.text()
    assert "caller" not in text.lower()
    found = dict(samples(text))
    assert requests(found, "GET", "unmatched", 404) == 20
    assert requests(found, "other", "unmatched", 405) == 20


async def test_kubectl_calls_are_counted_by_verb_and_outcome(client: Client, cluster: FakeCluster) -> None:
    await client.post(URL, json={"sandbox_id": "a"})
    cluster.answer_next("get", "unauthorized")
    assert (await client.get(f"{URL}/a")).status == 502
    found = await scrape(client)
    assert value(found, "provisioner_kubectl_call_seconds_count", verb="apply", outcome="ok") == 1
    assert value(found, "provisioner_kubectl_call_seconds_count", verb="get", outcome="ClusterRefused") == 1
    assert value(found, "provisioner_failures_total", kind="ClusterRefused") == 1


async def test_an_unexpected_exception_is_counted_as_a_bug(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SandboxService, "get", broken)
    assert (await client.get(f"{URL}/a")).status == 500
    found = await scrape(client)
    assert value(found, "provisioner_failures_total", kind="Bug") == 1
    assert requests(found, "GET", "/api/sandboxes/{sandbox_id}", 500) == 1


async def test_metrics_need_no_key_and_no_cluster(make_client: MakeClient, cluster: FakeCluster) -> None:
    client = await make_client(PROVISIONER_API_KEY="k3y")
    found = await scrape(client)
    assert value(found, "provisioner_kubectl_processes", state="running") == 0
    assert ("provisioner_queue_length", (("work", "process"),)) in found
    assert cluster.calls == []


async def test_applications_have_separate_metrics(make_client: MakeClient) -> None:
    one, other = await make_client(), await make_client()
    await one.get("/health")
    assert requests(await scrape(one), "GET", "/health", 200) == 1
    assert requests(await scrape(other), "GET", "/health", 200) == 0


async def test_openmetrics_is_served_if_accepted(client: Client) -> None:
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type == "application/openmetrics-text"
    assert (await response.text()).endswith("# EOF\n")
    response = await client.get("/metrics")
    assert response.content_type == "text/plain"
    document = await (await client.get("/openapi.json")).json()
    documented = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(documented) == {"text/plain", "application/openmetrics-text"}
