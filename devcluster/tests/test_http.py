"""The recorded HTTP exchanges in sequence: devcluster must give the recorded responses, field owners included."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from devcluster.tests.normalize import normalize
from devcluster.tests.replay import ROLE
from tests.record import RECORDED

# In the recorded order, because each exchange depends on the state that earlier ones left.
SEQUENCE = [
    *("get-namespace-missing", "apply-namespace", "apply-create-cold", "apply-create", "apply-strict"),
    *("apply-unchanged", "apply-invalid", "get-one", "get-stdin", "get-missing", "list-mixed", "list-set-selector"),
    *("readyz", "version", "annotate", "delete-stdin", "delete-stdin-missing", "delete-by-selector", "wait-deleted"),
    *("logs-missing", "events", "delete-namespace"),
]
PROTOBUF_OPENAPI = "/openapi/v2"
NO_TYPE = ["Content-Type"]


def exchanges(name: str) -> list[dict[str, Any]]:
    raw = json.loads((RECORDED / "http" / f"{name}.json").read_text(encoding="utf-8"))
    listed: list[dict[str, Any]] = raw["exchanges"]
    return listed


def served_resources(discovery: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Reduce a recorded discovery document to the resources that devcluster serves."""
    wanted = {
        (item["metadata"].get("name"), resource["resource"])
        for item in ours["items"]
        for resource in item["versions"][0]["resources"]
    }
    items = []
    for item in discovery["items"]:
        group = item["metadata"].get("name")
        version = dict(item["versions"][0])
        version["resources"] = [r for r in version["resources"] if (group, r["resource"]) in wanted]
        for resource in version["resources"]:
            if resource["resource"] == "resourcequotas":
                resource["verbs"] = ["get", "list", "watch"]  # devcluster enforces no quota
            kept = [sub for sub in resource.pop("subresources", []) if sub["subresource"] == "status"]
            if kept:
                resource["subresources"] = kept
        if version["resources"]:
            items.append({**item, "versions": [version]})
    return {**discovery, "items": items}


async def ask(session: aiohttp.ClientSession, exchange: dict[str, Any]) -> tuple[int, str, Any]:
    headers = {"Accept": exchange["accept"]}
    if exchange["content_type"]:
        headers["Content-Type"] = exchange["content_type"]
    body = None if exchange["request"] is None else json.dumps(exchange["request"])
    method, path = exchange["method"], exchange["path"]
    # Without a type in the record, kubectl sent none.
    async with session.request(method, path, headers=headers, data=body, skip_auto_headers=NO_TYPE) as response:
        text = await response.read()
        media_type = response.headers["Content-Type"]
        return response.status, media_type, json.loads(text) if "json" in media_type else text.decode("latin-1")


def normalize_causes(answer: Any) -> Any:
    """Normalize a response, and the diff in the causes of an Invalid."""
    normalized = normalize(answer)
    for cause in (normalized.get("details") or {}).get("causes", []) if isinstance(normalized, dict) else []:
        cause["message"] = normalize(cause["message"] + "\n").rstrip("\n")
    return normalized


async def test_each_recorded_exchange_gets_the_recorded_response(
    cluster: Cluster, session: aiohttp.ClientSession
) -> None:
    for name in SEQUENCE:
        for exchange in exchanges(name):
            where = f"{name}: {exchange['method']} {exchange['path']}"
            status, media_type, answer = await ask(session, exchange)
            assert (status, media_type) == (exchange["status"], exchange["response_content_type"]), where
            expected = exchange["response"]
            if exchange["path"].startswith(PROTOBUF_OPENAPI):
                continue  # too large to be in the record
            if exchange["path"].startswith("/api") and "?timeout" in exchange["path"]:
                expected = served_resources(expected, answer)
            assert normalize_causes(answer) == normalize_causes(expected), where
        if name == "apply-namespace":
            while cluster.get("ServiceAccount", "rechttp", "default") is None:
                await asyncio.sleep(0.01)


async def test_the_recorded_watch_sends_the_recorded_events(cluster: Cluster, session: aiohttp.ClientSession) -> None:
    for name in ("apply-namespace", "apply-create"):
        for exchange in exchanges(name):
            await ask(session, exchange)
        while cluster.get("ServiceAccount", "rechttp", "default") is None:
            await asyncio.sleep(0.01)
    listing, watching, *writes = exchanges("watch-pods")
    _, _, listed = await ask(session, listing)
    version = listed["metadata"]["resourceVersion"]
    path = watching["path"].replace(f"resourceVersion={listing['response']['metadata']['resourceVersion']}", "")
    async with session.get(f"{path}&resourceVersion={version}", headers={"Accept": watching["accept"]}) as watch:
        assert (watch.status, watch.headers["Content-Type"]) == (200, watching["response_content_type"])
        for exchange in writes:
            await asyncio.sleep(0.05)  # the scheduler updated the Pod before the next write
            status, _, answer = await ask(session, exchange)
            assert status == exchange["status"]
            assert normalize(answer) == normalize(exchange["response"]), exchange["path"]
        seen = [json.loads(await watch.content.readline()) for _ in watching["response"]]
    assert normalize(seen) == normalize(watching["response"])


@pytest.mark.parametrize("name", ["rules-review-admin", "rules-review-role"])
async def test_a_recorded_rules_review_gets_the_recorded_response(
    cluster: Cluster, session: aiohttp.ClientSession, name: str
) -> None:
    (exchange,) = exchanges(name)
    if name == "rules-review-role":
        cluster.authorization.restrict(exchange["request"]["spec"]["namespace"], ROLE[2:])
    status, media_type, answer = await ask(session, exchange)
    assert (status, media_type) == (exchange["status"], exchange["response_content_type"])
    assert normalize(answer) == normalize(exchange["response"])
