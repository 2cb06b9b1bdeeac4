"""Who has reaped a sandbox, where several reap at once: what is counted, and what a round tells."""

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


async def reaped(client: Client) -> float:
    return value(await scrape(client), "provisioner_reaped_total", reason="expired")


@pytest.fixture
async def two(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Return two replicas, one of which has made a sandbox that has expired."""
    clients = [await make_client() for _ in range(2)]
    assert (await clients[0].post(URL, json={"sandbox_id": "a", "ttl_seconds": 10})).status == 200
    monkeypatch.setattr(expiry, "present", lambda: datetime.now(UTC) + timedelta(seconds=20))
    return clients


async def test_a_sandbox_reaped_by_two_replicas_is_counted_once(two: list[Client], cluster: FakeCluster) -> None:
    doomed = [await reaper_of(one).due() for one in two]
    assert [len(one) for one in doomed] == [1, 1]
    assert await reaper_of(two[0]).reap(doomed[0]) == doomed[0]
    assert cluster.pod("a") is cluster.service("a") is None
    assert await reaper_of(two[1]).reap(doomed[1]) == []
    assert [await reaped(one) for one in two] == [1, 0]


async def test_a_sandbox_counts_as_reaped_if_its_service_delete_fails(two: list[Client], cluster: FakeCluster) -> None:
    cluster.do_before_next("delete", lambda: None)  # the Pod's
    cluster.answer_next("delete", "apply-forbidden")
    reaper = reaper_of(two[0])
    doomed = await reaper.due()
    assert await reaper.reap(doomed) == doomed
    assert cluster.pod("a") is None
    assert cluster.service("a") is not None
    assert await reaped(two[0]) == 1
