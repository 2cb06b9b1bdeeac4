"""Concurrent reapers: the counter, and the sandboxes that each round returns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sandboxes import expiry
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.service.reaper import Reaper
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster
from tests.metrics import scrape, value


def reaper_of(client: Client) -> Reaper:
    return client.app[SANDBOX_SERVICE].reaper


async def reaped_total(client: Client) -> float:
    return value(await scrape(client), "provisioner_reaped_total", reason="expired")


@pytest.fixture
async def replicas(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Return two replicas and an expired sandbox, which one of them created."""
    clients = [await make_client() for _ in range(2)]
    assert (await clients[0].post(URL, json={"sandbox_id": "a", "ttl_seconds": 10})).status == 200
    monkeypatch.setattr(expiry, "present", lambda: datetime.now(UTC) + timedelta(seconds=20))
    return clients


async def test_a_sandbox_reaped_by_two_replicas_is_counted_once(replicas: list[Client], cluster: FakeCluster) -> None:
    expired = [await reaper_of(one).due() for one in replicas]
    assert [len(one) for one in expired] == [1, 1]
    assert await reaper_of(replicas[0]).reap(expired[0]) == expired[0]
    assert cluster.pod("a") is cluster.service("a") is None
    assert await reaper_of(replicas[1]).reap(expired[1]) == []
    assert [await reaped_total(one) for one in replicas] == [1, 0]


async def test_a_sandbox_counts_as_reaped_if_its_service_delete_fails(
    replicas: list[Client], cluster: FakeCluster
) -> None:
    cluster.do_before_next("delete", lambda: None)  # the Pod's
    cluster.answer_next("delete", "apply-forbidden")
    reaper = reaper_of(replicas[0])
    expired = await reaper.due()
    assert await reaper.reap(expired) == expired
    assert cluster.pod("a") is None
    assert cluster.service("a") is not None
    assert await reaped_total(replicas[0]) == 1
