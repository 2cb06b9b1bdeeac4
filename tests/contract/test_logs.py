"""The log of the service as a process: request ids, stderr of kubectl, and no secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import kmock
import pytest

from devcluster import Cluster, once
from tests.contract.faults import refuse_next
from tests.contract.processes import (
    PROVISIONER,
    environment,
    free_port,
    healthy,
    running,
)
from tests.contract.service import until
from tests.record import case


@pytest.mark.slow
async def test_kubectls_stderr_is_logged_with_the_request_id(
    service_url: str, cluster: Cluster, tmp_path: Path
) -> None:
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded")
    headers = {"X-API-Key": "k3y", "X-Request-ID": "find-me"}
    async with aiohttp.ClientSession(headers=headers) as session:
        response = await session.post(f"{service_url}/api/sandboxes", json={"sandbox_id": "a"})
        assert response.status == 429
        assert response.headers["X-Request-ID"] == "find-me"
        assert await response.json() == {"detail": "The cluster's quota for sandboxes is used up"}

    async def logged() -> bool:
        return any(line["logger"] == "aiohttp.access" for line in lines_of("find-me", tmp_path / "log"))

    await until(logged)
    lines = lines_of("find-me", tmp_path / "log")
    (access,) = [line for line in lines if line["logger"] == "aiohttp.access"]
    assert access["event"].startswith("127.0.0.1 POST /api/sandboxes 429")
    assert {key: access[key] for key in ("level", "method", "path", "status", "sandbox_id")} == {
        "level": "info",
        "method": "POST",
        "path": "/api/sandboxes",
        "status": 429,
        "sandbox_id": "a",
    }
    (failed,) = [line for line in lines if line["event"].startswith("LimitReached")]
    assert (failed["level"], failed["logger"]) == ("warning", "sandboxes.api.middlewares")
    assert case("apply-quota-exceeded").stderr.strip() in failed["event"]


async def test_the_log_contains_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        PORT=str(port),
        HOST="127.0.0.1",
        PROVISIONER_API_KEY="the-k3y,of-the-service",
        LOG_LEVEL="DEBUG",
    )
    secrets = {"PASSWORD": 'pass"w0rd-of-the-sandbox', "TOKEN": "t0ken of\nthe sandbox"}
    url = f"http://127.0.0.1:{port}/api/sandboxes"
    body = {"sandbox_id": "a", "env": secrets}
    async with (
        running(*PROVISIONER, environ=environ, log=log),
        aiohttp.ClientSession(headers={"X-API-Key": "the-k3y,of-the-service"}) as session,
    ):
        await until(healthy(port))
        # A webhook or the API server may quote the request in its rejection.
        message = f"admission webhook denied the request: {secrets['PASSWORD']} and {json.dumps(secrets)}"
        message += " and the-k3y,of-the-service"
        refusal = kmock.KubernetesError(403, "Forbidden", message, {})
        cluster.kmock["PATCH", kmock.resource("v1/pods")] << once(refusal)
        assert (await session.post(url, json=body)).status == 502
        assert (await session.post(url, json=body)).status == 200
        assert (await session.post(url, json={**body, "thread_id": "another"})).status == 409
        assert (await session.post(url, json={**body, "sandbox_id": "-"})).status == 422
        assert (await session.post(url, json=body, headers={"X-API-Key": "wr0ng-k3y"})).status == 401
        bearer = {"X-API-Key": "x", "Authorization": "Bearer b3arer-t0ken"}
        assert (await session.get(f"{url}/a", headers=bearer)).status == 401
        assert (await session.get(f"{url}/a")).status == 200
        assert (await session.get(f"{url}/a/diagnostics")).status == 200
        cluster.faults.answer(500, verb="get", times=1)
        assert (await session.delete(f"{url}/a")).status == 200
        await until(lambda: cluster.objects("Pod") == [])
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("admission webhook denied the request: (hidden)" in line["event"] for line in lines)
    assert any(line["event"].startswith("kubectl apply") and line["level"] == "debug" for line in lines)
    assert sum("PROVISIONER_API_KEY has a comma: it is one key since 0.2" in line["event"] for line in lines) == 1
    everything = "\n".join(str(value) for line in lines for value in line.values())
    hidden = (
        "the-k3y",
        "of-the-service",
        "w0rd-of-the",
        "t0ken of",
        'the sandbox"',
        "wr0ng-k3y",
        "b3arer-t0ken",
        cluster.token,
    )
    assert [one for one in hidden if one in everything or one in text] == []


def lines_of(request_id: str, log: Path) -> list[dict[str, Any]]:
    """Return the log lines of a request; every line of the log must be JSON."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]
