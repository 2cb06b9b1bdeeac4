"""Fixtures of devcluster's tests: a cluster, a real kubectl that talks to it, and an HTTP client without kubectl."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest

from devcluster import Cluster
from tests.kubectl import cluster, kubectl

__all__ = ["cluster", "kubectl"]


@pytest.fixture
async def session(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client of the cluster with all rights."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cluster.ca_file)))
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers, connector=connector) as made:
        yield made
