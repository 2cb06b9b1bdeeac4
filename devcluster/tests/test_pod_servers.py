"""The Pods' own addresses, at which a stand-in for their servers answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from devcluster import Cluster
from tests.kubectl import Kubectl
from tests.waiting import until

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}, {"containerPort": 3000}]}]},
}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a cluster whose Pods answer."""
    async with Cluster(directory=tmp_path / "cluster", pod_servers=True) as cluster:
        yield cluster


async def answered(address: str, port: int, path: str = "/v1/sandbox") -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}:{port}{path}") as response:
        return response.status


async def test_a_pod_answers_at_its_own_address_until_it_is_deleted(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl.apply(POD)).rc == 0

    def address() -> str:
        pod = cluster.get("Pod", "default", "p") or {}
        return str(pod.get("status", {}).get("podIP", ""))

    async def is_answering(port: int) -> bool:
        try:
            return bool(address()) and await answered(address(), port) == 200
        except aiohttp.ClientConnectionError:
            return False

    await until(lambda: is_answering(8080))
    await until(lambda: is_answering(3000))
    where = address()
    assert where.startswith("127.")

    async def own(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=418)

    cluster.pods_answer_by(own)
    assert await answered(where, 8080) == 418
    assert (await kubectl("delete", "pod", "p", "-n", "default")).rc == 0
    with pytest.raises(aiohttp.ClientConnectionError):
        await answered(where, 8080)
