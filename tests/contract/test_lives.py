"""How a sandbox ends by itself: TTL, renewal, use, the reaper, and what a refused create leaves."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import lifetimes
from sandboxes.api import LIFECYCLE
from sandboxes.reaper import Reaper
from tests.contract.conftest import Kubectl
from tests.contract.faults import refuse_next
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until

POD = ("Pod", "deer-flow", "sandbox-a")
SERVICE = ("Service", "deer-flow", "sandbox-a-svc")
ROOT = Path(__file__).parents[2]


def reaper_of(provisioner: Provisioner) -> Reaper:
    return provisioner.client.app[LIFECYCLE].reaper


def uid_of(cluster: Cluster) -> str | None:
    pod = cluster.get(*POD)
    return None if pod is None else str(pod["metadata"]["uid"])


def annotations_of(cluster: Cluster) -> dict[str, str]:
    """Return the Pod's annotations: what the service writes, and no kubelet does."""
    pod = cluster.get(*POD)
    assert pod is not None
    return dict(pod["metadata"]["annotations"])


def seconds_until(time: str) -> float:
    return (datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()


def pass_time(monkeypatch: pytest.MonkeyPatch, **time: float) -> None:
    """Let the service's clock be so far ahead."""
    ahead = timedelta(**time)
    monkeypatch.setattr(lifetimes, "present", lambda: datetime.now(UTC) + ahead)


async def reaps_one(provisioner: Provisioner) -> bool:
    """Do a round of the reaper; a Pod whose status has changed since it was judged has its turn in the next one."""
    return len(await reaper_of(provisioner).round(dry_run=False)) == 1


def nothing_left(cluster: Cluster) -> bool:
    return not cluster.objects("Pod") and not cluster.objects("Service")


async def told(provisioner: Provisioner, sandbox_id: str = "a") -> dict[str, Any]:
    answer: dict[str, Any] = await (await provisioner.get(f"{URL}/{sandbox_id}")).json()
    return answer


async def renew(provisioner: Provisioner, seconds: int) -> dict[str, Any]:
    response = await provisioner.post(f"{URL}/a/renew", json={"ttl_seconds": seconds})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


@pytest.fixture
async def provisioner(start_provisioner: StartProvisioner) -> Provisioner:
    """Return the service without rounds of the reaper: each test does its own."""
    return await start_provisioner(REAPER_INTERVAL="0")


# TTL and renewal


async def test_a_sandbox_says_when_it_expires_and_is_gone_then(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(REAPER_INTERVAL="0.1")
    await create(provisioner, "stays")
    assert (await told(provisioner, "stays"))["expires_at"] is None
    made = await create(provisioner, ttl_seconds=1)
    assert 0 < seconds_until(made["expires_at"]) <= 2

    async def gone() -> bool:
        return (await provisioner.get(f"{URL}/a")).status == 404

    await until(gone)
    await until(lambda: cluster.get(*POD) is None and cluster.get(*SERVICE) is None)
    assert (await provisioner.get(f"{URL}/stays")).status == 200


async def test_the_operators_ttl_is_for_those_that_ask_for_none(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner(SANDBOX_TTL="3600", REAPER_INTERVAL="0")
    assert 3590 < seconds_until((await create(provisioner, "a"))["expires_at"]) <= 3601
    assert (await create(provisioner, "b", ttl_seconds=0))["expires_at"] is None


async def test_a_renewal_sets_the_end_sooner_or_later_or_never(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=100)
    before = uid_of(cluster)
    assert 990 < seconds_until((await renew(provisioner, 1000))["expires_at"]) <= 1001
    assert 40 < seconds_until((await renew(provisioner, 50))["expires_at"]) <= 51
    assert (await renew(provisioner, 0))["expires_at"] is None
    assert (await told(provisioner))["expires_at"] is None
    assert uid_of(cluster) == before


async def test_a_repeated_create_never_shortens_a_life(provisioner: Provisioner) -> None:
    made = await create(provisioner, ttl_seconds=1000)
    assert (await create(provisioner, ttl_seconds=10))["expires_at"] == made["expires_at"]
    assert (await create(provisioner))["expires_at"] == made["expires_at"]
    assert seconds_until((await create(provisioner, ttl_seconds=2000))["expires_at"]) > 1900
    assert (await create(provisioner, ttl_seconds=0))["expires_at"] is None
    assert (await create(provisioner, ttl_seconds=10))["expires_at"] is None


async def test_an_expired_sandbox_that_is_asked_for_again_is_made_anew(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    before = uid_of(cluster)
    pass_time(monkeypatch, seconds=20)
    await create(provisioner)
    assert uid_of(cluster) not in {before, None}


async def test_an_expired_sandbox_that_is_asked_to_live_on_does(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    before = uid_of(cluster)
    pass_time(monkeypatch, seconds=20)
    await create(provisioner, ttl_seconds=10)
    assert uid_of(cluster) == before
    assert await reaper_of(provisioner).due() == []


async def test_what_is_not_there_or_going_can_be_neither_renewed_nor_touched(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    body = {"ttl_seconds": 60}
    assert (await provisioner.post(f"{URL}/a/renew", json=body)).status == 404
    assert (await provisioner.post(f"{URL}/a/touch")).status == 404
    assert (await provisioner.post(f"{URL}/No_Id/touch")).status == 404
    cluster.stopping_takes(3600)
    await create(provisioner, idle_timeout_seconds=5)
    await until(lambda: (cluster.get(*POD) or {}).get("status", {}).get("phase") == "Running")
    await provisioner.delete(f"{URL}/a")
    assert uid_of(cluster) is not None
    assert (await provisioner.post(f"{URL}/a/renew", json=body)).status == 404
    assert (await provisioner.post(f"{URL}/a/touch")).status == 404
    assert len(cluster.objects("Pod")) == 1


@pytest.mark.parametrize("body", [{}, {"ttl_seconds": -1}, {"ttl_seconds": "soon"}, {"ttl_seconds": 10**12}, []])
async def test_a_renewal_that_says_nothing_sensible_is_422_and_changes_nothing(
    provisioner: Provisioner, cluster: Cluster, body: object
) -> None:
    await create(provisioner, ttl_seconds=100)
    before = annotations_of(cluster)
    response = await provisioner.post(f"{URL}/a/renew", json=body)
    assert response.status == 422
    assert (await response.json())["detail"][0]["loc"][0] == "body"
    assert annotations_of(cluster) == before


async def test_of_two_creates_at_once_in_two_processes_the_shorter_life_does_not_win(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    two = [await start_provisioner(REAPER_INTERVAL="0") for _ in range(2)]
    for number in range(5):
        asked: list[dict[str, Any]] = [{"ttl_seconds": 3600, "labels": {"team": "red"}}, {"ttl_seconds": 20}]
        made = await asyncio.gather(
            *(create(one, f"s{number}", **fields) for one, fields in zip(two, asked, strict=True))
        )
        pod = cluster.get("Pod", "deer-flow", f"sandbox-s{number}")
        assert pod is not None
        assert lifetimes.expires_at(pod) == made[0]["expires_at"]
        assert seconds_until(made[0]["expires_at"]) > 3500


# Use


async def test_an_unused_sandbox_expires_and_a_use_puts_that_off(
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


async def test_uses_are_written_once_a_minute_and_none_is_forgotten(
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
    await provisioner.client.app[LIFECYCLE].finish()
    assert annotations_of(cluster)["provisioner/used-at"] > max(written)


async def test_a_short_idle_timeout_is_kept_alive_by_uses_that_come_in_time(
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


async def test_a_sandbox_that_may_stay_unused_is_not_written_to(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=100)
    before = annotations_of(cluster)
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200
    await create(provisioner)
    assert annotations_of(cluster) == before


# The reaper


async def test_what_ended_long_ago_is_deleted_and_what_ended_just_now_is_not(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner)
    cluster.set_pod("deer-flow", "sandbox-a", phase="Failed", reason="Evicted")

    async def failed() -> bool:
        return bool((await told(provisioner))["status"] == "Failed")

    await until(failed)
    assert await reaper_of(provisioner).round(dry_run=False) == []
    pass_time(monkeypatch, seconds=3700)
    await until(lambda: reaps_one(provisioner))
    await until(lambda: nothing_left(cluster))


@pytest.mark.parametrize("lost", ["pod/sandbox-a", "service/sandbox-a-svc"])
async def test_a_half_that_nobody_completes_is_deleted(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, lost: str
) -> None:
    provisioner = await start_provisioner(REAPER_INTERVAL="0.1", REAPER_GRACE="1")
    await create(provisioner)
    await kubectl("delete", lost, "-n", "deer-flow", "--grace-period=0", "--force")
    await until(lambda: nothing_left(cluster))


async def test_a_sandbox_that_lost_its_service_long_after_it_was_made_has_its_grace(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: provisioner.view.sandbox("a")[1] is None)
    pass_time(monkeypatch, hours=1)
    assert await reaper_of(provisioner).due(halves_must_last=True) == []
    assert len(await reaper_of(provisioner).due()) == 1
    await create(provisioner)
    assert uid_of(cluster) is not None


async def test_what_is_not_ours_stays_whatever_it_says(
    provisioner: Provisioner, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    for kind, name in (("pod", "sandbox-a"), ("service", "sandbox-a-svc")):
        label = "app.kubernetes.io/managed-by=somebody"
        result = await kubectl("label", kind, name, "-n", "deer-flow", label, "--overwrite")
        assert result.rc == 0
    await until(lambda: "somebody" in str(provisioner.view.sandbox("a")))
    pass_time(monkeypatch, hours=1)
    assert await reaper_of(provisioner).due() == []


async def rescue_by_renewal(provisioner: Provisioner) -> None:
    await renew(provisioner, 100_000)


async def rescue_by_touch(provisioner: Provisioner) -> None:
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200


async def rescue_by_create(provisioner: Provisioner) -> None:
    await create(provisioner, ttl_seconds=100_000, idle_timeout_seconds=0)


async def rescue_by_making_it_anew(provisioner: Provisioner) -> None:
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await create(provisioner)


@pytest.mark.parametrize("asked", [{"ttl_seconds": 10}, {"idle_timeout_seconds": 10}])
@pytest.mark.parametrize("rescue", [rescue_by_renewal, rescue_by_touch, rescue_by_create, rescue_by_making_it_anew])
async def test_a_sandbox_that_is_rescued_between_judgement_and_deletion_stays(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    rescue: Callable[[Provisioner], Awaitable[None]],
) -> None:
    # The reaper of another process, which knows nothing of what this one is asked.
    ours, others = [await start_provisioner(REAPER_INTERVAL="0") for _ in range(2)]
    if (rescue, [*asked]) in ((rescue_by_renewal, ["idle_timeout_seconds"]), (rescue_by_touch, ["ttl_seconds"])):
        asked = {"ttl_seconds": 10} if rescue is rescue_by_renewal else {"idle_timeout_seconds": 10}
    await create(ours, **asked)
    await until(lambda: others.view.sandbox("a")[1] is not None)
    pass_time(monkeypatch, seconds=20)
    doomed = await reaper_of(others).due()
    assert len(doomed) == 1
    await rescue(ours)
    before = uid_of(cluster)
    assert await reaper_of(others).reap(doomed) == []
    assert uid_of(cluster) == before
    assert (await ours.get(f"{URL}/a")).status == 200
    assert cluster.get(*SERVICE) is not None


async def test_a_half_that_is_completed_between_judgement_and_deletion_stays(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = [await start_provisioner(REAPER_INTERVAL="0") for _ in range(2)]
    await create(ours)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: others.view.sandbox("a")[1] is None and others.view.sandbox("a")[0] is not None)
    pass_time(monkeypatch, hours=1)
    doomed = await reaper_of(others).due()
    assert len(doomed) == 1
    before = uid_of(cluster)
    await create(ours)
    assert await reaper_of(others).reap(doomed) == []
    assert uid_of(cluster) == before
    assert (await ours.get(f"{URL}/a")).status == 200


async def test_two_reapers_at_once_delete_all_that_is_due_and_nothing_else(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [await start_provisioner(REAPER_INTERVAL="0") for _ in range(2)]
    await asyncio.gather(*(create(two[n % 2], f"s{n}", ttl_seconds=10 if n < 6 else 0) for n in range(9)))
    await until(lambda: all(len(list(one.view.sandboxes())) == 9 for one in two))
    pass_time(monkeypatch, seconds=20)

    async def all_are_gone() -> bool:
        # A Pod whose kubelet has written a new status since it was judged has its turn in the next round.
        await asyncio.gather(*(reaper_of(one).round(dry_run=False) for one in two))
        return len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 3

    await until(all_are_gone)
    assert {pod["metadata"]["name"] for pod in cluster.objects("Pod")} == {"sandbox-s6", "sandbox-s7", "sandbox-s8"}


async def test_a_dry_run_says_what_it_would_delete_and_deletes_nothing(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    await create(provisioner, ttl_seconds=1)
    await create(provisioner, "b")
    await until(lambda: lifetimes.ttl_ends_at(cluster.get(*POD) or {}) <= lifetimes.present())

    async def reap(*arguments: str, **variables: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "provisioner.py"), "reap", *arguments),
            env={**provisioner.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
        )
        stdout, _ = await process.communicate()
        assert process.returncode == 0
        return stdout.decode()

    assert "a: it expired at " in await reap("--dry-run")
    assert "a: it expired at " in await reap(REAPER_DRY_RUN="true")
    assert len(cluster.objects("Pod")) == 2
    said = await reap()
    assert said.startswith("a: it expired at ")
    assert said.count(os.linesep) == 1
    await until(lambda: len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 1)
    assert await reap() == ""


# What a refused create leaves


async def test_what_a_refused_create_made_is_gone_when_the_cluster_is_back(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxes.creation.UNDO_SECONDS", 0.3)
    monkeypatch.setattr("sandboxes.creation.SETTLE_PAUSE", 0.1)
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    cluster.faults.answer(503, verb="delete")
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert response.status == 429
    assert uid_of(cluster) is not None
    assert (await provisioner.get(f"{URL}/a")).status == 404
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))
    await create(provisioner)


async def refused_but_whole(provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a create be told that it failed, though the cluster has made all of it."""
    monkeypatch.setattr("sandboxes.lifecycle.CREATE_SECONDS", 1.0)
    monkeypatch.setattr("sandboxes.creation.UNDO_SECONDS", 0.3)
    monkeypatch.setattr("sandboxes.creation.SETTLE_PAUSE", 0.1)
    await until(lambda: provisioner.view.is_fresh)
    cluster.faults.hang(verb="get")
    cluster.faults.cut(0, verb="patch", resource="services")
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert response.status in {503, 504}
    await until(lambda: None not in provisioner.view.sandbox("a"))
    monkeypatch.setattr("sandboxes.lifecycle.CREATE_SECONDS", 21.0)


async def test_a_refused_sandbox_that_is_whole_all_the_same_is_deleted(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refused_but_whole(provisioner, cluster, monkeypatch)
    assert uid_of(cluster) is not None
    assert cluster.get(*SERVICE) is not None
    assert (await provisioner.get(URL)).status == 200
    assert await (await provisioner.get(URL)).json() == {"sandboxes": [], "count": 0}
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))


@pytest.mark.parametrize("by", ["the same process", "another process"])
async def test_a_refused_sandbox_that_is_asked_for_again_meanwhile_stays(
    provisioner: Provisioner,
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    other = await start_provisioner(REAPER_INTERVAL="0")
    await refused_but_whole(provisioner, cluster, monkeypatch)
    before = uid_of(cluster)
    await until(lambda: other.view.is_fresh and None not in other.view.sandbox("a"))
    await create(provisioner if by == "the same process" else other)
    cluster.faults.clear()
    creation = provisioner.client.app[LIFECYCLE]

    async def shown() -> bool:
        return (await provisioner.get(f"{URL}/a")).status == 200

    await until(shown)
    await creation.finish()
    assert uid_of(cluster) == before
    assert cluster.get(*SERVICE) is not None


async def test_a_create_after_a_refused_one_of_which_nothing_is_left_is_confirmed_at_once(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused one is not settled yet when the namespace goes, and what it made with it."""
    monkeypatch.setattr("sandboxes.creation.UNDO_SECONDS", 0.3)
    monkeypatch.setattr("sandboxes.creation.SETTLE_PAUSE", 60)
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    cluster.faults.answer(503, verb="delete", resource="pods")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
    await until(lambda: any(request.method.value == "DELETE" for request in cluster.kmock.requests))
    await kubectl("delete", "namespace", "deer-flow", "--wait=false")
    await until(lambda: nothing_left(cluster))
    await create(provisioner)
    assert (await provisioner.get(f"{URL}/a")).status == 200
    cluster.faults.clear()


# MAX_SANDBOXES


async def test_past_the_most_it_is_429_with_the_counts(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    provisioner = await start_provisioner(MAX_SANDBOXES="3", REAPER_INTERVAL="0")
    requests = [provisioner.post(URL, json={"sandbox_id": f"s{n}"}) for n in range(8)]
    responses = await asyncio.gather(*requests)
    assert sorted(response.status for response in responses) == [200] * 3 + [429] * 5
    refused = next(response for response in responses if response.status == 429)
    assert int(refused.headers["Retry-After"]) > 0
    body = await refused.json()
    assert (body["limit"], body["count"]) == (3, 3)
    assert "3" in body["detail"]
    assert len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 3
    made = cluster.objects("Pod")[0]["metadata"]["labels"]["sandbox-id"]
    await create(provisioner, made)
    await provisioner.delete(f"{URL}/{made}")
    await create(provisioner, "one-more")


async def test_a_use_that_could_not_be_written_in_time_is_written_later(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sandboxes.uses.RETRY", timedelta(seconds=0.2))
    monkeypatch.setattr("sandboxes.uses.WRITE_INTERVAL", timedelta(seconds=3))
    await create(provisioner, idle_timeout_seconds=60)
    assert (await provisioner.post(f"{URL}/a/touch")).status == 200
    cluster.faults.answer(503, verb="patch")
    await until(lambda: "that a sandbox was used could not be written down" in caplog.text)
    cluster.faults.clear()
    await until(lambda: "provisioner/used-at" in annotations_of(cluster))


async def test_what_another_process_has_completed_stays_when_its_maker_is_refused(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxes.creation.OTHERS_SERVICE_SECONDS", 0.0)
    maker, other = [await start_provisioner(REAPER_INTERVAL="0") for _ in range(2)]
    await until(lambda: maker.view.is_fresh and other.view.is_fresh)
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    # The other one confirms the Pod, and its Service waits in line while the maker looks what is there.
    cluster.faults.slow(1.0, verb="get")
    refused = asyncio.create_task(maker.post(URL, json={"sandbox_id": "a", "labels": {"team": "red"}}))
    await until(lambda: cluster.get(*POD) is not None)
    await create(other)
    assert (await refused).status in {200, 429}
    cluster.faults.clear()
    await until(lambda: provisioner_settled(maker))
    assert cluster.get(*POD) is not None
    assert cluster.get(*SERVICE) is not None


def provisioner_settled(provisioner: Provisioner) -> bool:
    return not provisioner.client.app[LIFECYCLE].is_settling
