"""The expiry of sandboxes: TTL, renewal, idle timeout; and MAX_SANDBOXES."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import expiry
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.lives import (
    POD,
    SERVICE,
    annotations_of,
    get_sandbox,
    nothing_left,
    pass_time,
    reaper_of,
    reaps_one,
    renew,
    seconds_until,
    uid_of,
)
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until

pytestmark = pytest.mark.usefixtures("without_reaper")

# TTL and renewal


async def test_a_sandbox_reports_its_expiry_and_is_deleted_then(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(REAPER_INTERVAL="0.1")
    await create(provisioner, "stays")
    assert (await get_sandbox(provisioner, "stays"))["expires_at"] is None
    made = await create(provisioner, ttl_seconds=1)
    assert 0 < seconds_until(made["expires_at"]) <= 2

    async def is_deleted() -> bool:
        return (await provisioner.get(f"{URL}/a")).status == 404

    await until(is_deleted)
    await until(lambda: cluster.get(*POD) is None and cluster.get(*SERVICE) is None)
    assert (await provisioner.get(f"{URL}/stays")).status == 200


async def test_sandbox_ttl_is_the_default_for_creates_without_a_ttl(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner(SANDBOX_TTL="3600")
    assert 3590 < seconds_until((await create(provisioner, "a"))["expires_at"]) <= 3601
    assert (await create(provisioner, "b", ttl_seconds=0))["expires_at"] is None


async def test_a_renewal_extends_shortens_or_disables_the_expiry(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=100)
    before = uid_of(cluster)
    assert 990 < seconds_until((await renew(provisioner, 1000))["expires_at"]) <= 1001
    assert 40 < seconds_until((await renew(provisioner, 50))["expires_at"]) <= 51
    assert (await renew(provisioner, 0))["expires_at"] is None
    assert (await get_sandbox(provisioner))["expires_at"] is None
    assert uid_of(cluster) == before


async def test_a_repeated_create_never_shortens_the_expiry(provisioner: Provisioner) -> None:
    made = await create(provisioner, ttl_seconds=1000)
    assert (await create(provisioner, ttl_seconds=10))["expires_at"] == made["expires_at"]
    assert (await create(provisioner))["expires_at"] == made["expires_at"]
    assert seconds_until((await create(provisioner, ttl_seconds=2000))["expires_at"]) > 1900
    assert (await create(provisioner, ttl_seconds=0))["expires_at"] is None
    assert (await create(provisioner, ttl_seconds=10))["expires_at"] is None


async def test_a_create_replaces_an_expired_sandbox(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    before = uid_of(cluster)
    pass_time(monkeypatch, seconds=20)
    await create(provisioner)
    assert uid_of(cluster) not in {before, None}


async def test_a_create_with_a_ttl_keeps_an_expired_sandbox(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    before = uid_of(cluster)
    pass_time(monkeypatch, seconds=20)
    await create(provisioner, ttl_seconds=10)
    assert uid_of(cluster) == before
    assert await reaper_of(provisioner).due() == []


async def test_renew_and_touch_are_404_for_a_missing_or_terminating_sandbox(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    body = {"ttl_seconds": 60}
    async with Cluster(directory=tmp_path / "slow", speed=0.1) as slow:  # a Pod's grace period takes 50 s here
        provisioner = await start_provisioner(cluster=slow)
        assert (await provisioner.post(f"{URL}/a/renew", json=body)).status == 404
        assert (await provisioner.post(f"{URL}/a/touch")).status == 404
        assert (await provisioner.post(f"{URL}/No_Id/touch")).status == 404
        slow.stopping_takes(3600)
        await create(provisioner, idle_timeout_seconds=5)
        await until(lambda: (slow.get(*POD) or {}).get("status", {}).get("phase") == "Running")
        await provisioner.delete(f"{URL}/a")
        assert uid_of(slow) is not None
        assert (await provisioner.post(f"{URL}/a/renew", json=body)).status == 404
        assert (await provisioner.post(f"{URL}/a/touch")).status == 404
        assert len(slow.objects("Pod")) == 1


async def test_an_invalid_renewal_is_422_and_changes_nothing(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=100)
    before = annotations_of(cluster)
    bodies: list[object] = [{}, {"ttl_seconds": -1}, {"ttl_seconds": "soon"}, {"ttl_seconds": 10**12}, []]
    for body in bodies:
        response = await provisioner.post(f"{URL}/a/renew", json=body)
        assert response.status == 422, body
        assert (await response.json())["detail"][0]["loc"][0] == "body"
        assert annotations_of(cluster) == before


@pytest.mark.slow
async def test_of_concurrent_creates_in_two_processes_the_longer_ttl_wins(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    two = [await start_provisioner() for _ in range(2)]
    for number in range(5):
        options: list[dict[str, Any]] = [{"ttl_seconds": 3600, "labels": {"team": "red"}}, {"ttl_seconds": 20}]
        made = await asyncio.gather(
            *(create(one, f"s{number}", **fields) for one, fields in zip(two, options, strict=True))
        )
        pod = cluster.get("Pod", "deer-flow", f"sandbox-s{number}")
        assert pod is not None
        assert expiry.expires_at(pod) == made[0]["expires_at"]
        assert seconds_until(made[0]["expires_at"]) > 3500


# Use


async def test_an_idle_sandbox_expires_and_a_touch_postpones_it(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await create(provisioner, idle_timeout_seconds=300)
    assert 290 < seconds_until(made["expires_at"]) <= 301
    pass_time(monkeypatch, seconds=200)
    touched = await (await provisioner.post(f"{URL}/a/touch")).json()
    assert 490 < seconds_until(touched["expires_at"]) <= 501
    pass_time(monkeypatch, seconds=400)
    assert await reaper_of(provisioner).due() == []
    pass_time(monkeypatch, seconds=502)
    await until(lambda: reaps_one(provisioner))
    await until(lambda: nothing_left(cluster))


async def test_uses_are_written_once_a_minute_and_the_last_one_at_shutdown(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, idle_timeout_seconds=300)
    pass_time(monkeypatch, seconds=61)
    written = set()
    for _ in range(10):
        await provisioner.post(f"{URL}/a/touch")
        written.add(annotations_of(cluster)["provisioner/used-at"])
    await asyncio.gather(*(create(provisioner) for _ in range(10)))
    written.add(annotations_of(cluster)["provisioner/used-at"])
    assert len(written) == 1
    touched = await (await provisioner.post(f"{URL}/a/touch")).json()
    assert seconds_until(touched["expires_at"]) > 350
    await provisioner.client.app[SANDBOX_SERVICE].finish()
    assert annotations_of(cluster)["provisioner/used-at"] > max(written)


@pytest.mark.slow
async def test_touches_keep_a_sandbox_with_a_short_idle_timeout_alive(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(REAPER_INTERVAL="0.1")
    await create(provisioner, idle_timeout_seconds=2)
    before = uid_of(cluster)
    end = asyncio.get_running_loop().time() + 5

    async def used_for_long() -> bool:
        assert (await provisioner.post(f"{URL}/a/touch")).status == 200
        return asyncio.get_running_loop().time() > end

    await until(used_for_long)
    assert uid_of(cluster) == before
    await until(lambda: nothing_left(cluster))


async def test_a_use_without_an_idle_timeout_writes_nothing(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=100)
    before = annotations_of(cluster)
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200
    await create(provisioner)
    assert annotations_of(cluster) == before


@pytest.mark.slow
@pytest.mark.deadlines(use_retry=0.2, use_interval=3)
async def test_a_failed_write_of_the_last_use_is_retried(
    provisioner: Provisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await create(provisioner, idle_timeout_seconds=60)
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200
    cluster.faults.answer(503, verb="patch")
    await until(lambda: "the last use of a sandbox could not be written" in caplog.text)
    cluster.faults.clear()
    await until(lambda: "provisioner/used-at" in annotations_of(cluster))


# MAX_SANDBOXES


async def test_creates_past_max_sandboxes_are_429_with_limit_and_count(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(MAX_SANDBOXES="3")
    requests = [provisioner.post(URL, json={"sandbox_id": f"s{n}"}) for n in range(8)]
    responses = await asyncio.gather(*requests)
    assert sorted(response.status for response in responses) == [200] * 3 + [429] * 5
    rejected = next(response for response in responses if response.status == 429)
    assert int(rejected.headers["Retry-After"]) > 0
    body = await rejected.json()
    assert (body["limit"], body["count"]) == (3, 3)
    assert "3" in body["detail"]
    assert len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 3
    made = cluster.objects("Pod")[0]["metadata"]["labels"]["sandbox-id"]
    await create(provisioner, made)
    await provisioner.delete(f"{URL}/{made}")
    await create(provisioner, "one-more")
