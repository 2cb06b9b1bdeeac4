"""Reads the samples of /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(client: TestClient[Request, Application]) -> Samples:
    response = await client.get("/metrics")
    assert response.status == 200
    return dict(samples(await response.text()))


def samples(text: str) -> Iterator[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


def requests(found: Samples, method: str, route: str, status: int) -> float:
    name = "provisioner_http_request_seconds_count"
    return value(found, name, method=method, route=route, status=str(status))
