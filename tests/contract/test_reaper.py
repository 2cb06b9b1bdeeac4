"""Sandboxes that the reaper deletes, and sandboxes that it keeps."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes import expiry
from tests.conftest import ROOT
from tests.contract.lives import POD, SERVICE, get_sandbox, nothing_left, pass_time, reaper_of, reaps_one, renew, uid_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl
from tests.marker import look_at

pytestmark = pytest.mark.usefixtures("without_reaper")


async def test_an_ended_sandbox_is_reaped_only_after_ended_ttl(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner)
    cluster.set_pod("deer-flow", "sandbox-a", phase="Failed", reason="Evicted")

    async def failed() -> bool:
        return bool((await get_sandbox(provisioner))["status"] == "Failed")

    await until(failed)
    assert await reaper_of(provisioner).round(dry_run=False) == []
    pass_time(monkeypatch, seconds=3700)
    await until(lambda: reaps_one(provisioner))
    await until(lambda: nothing_left(cluster))


@pytest.mark.parametrize("lost", ["pod/sandbox-a", pytest.param("service/sandbox-a-svc", marks=pytest.mark.slow)])
async def test_an_incomplete_sandbox_is_reaped(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, lost: str
) -> None:
    provisioner = await start_provisioner(REAPER_INTERVAL="0.1", REAPER_GRACE="1")
    await create(provisioner)
    await kubectl("delete", lost, "-n", "deer-flow", "--grace-period=0", "--force")
    await until(lambda: nothing_left(cluster))


async def test_an_old_sandbox_that_lost_its_service_gets_the_grace_period(
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


@pytest.mark.slow
async def test_an_expired_sandbox_of_another_manager_is_not_reaped(
    provisioner: Provisioner, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, ttl_seconds=10)
    for kind, name in (("pod", "sandbox-a"), ("service", "sandbox-a-svc")):
        label = "app.kubernetes.io/managed-by=somebody"
        result = await kubectl("label", kind, name, "-n", "deer-flow", label, "--overwrite")
        assert result.rc == 0
    await until(lambda: all("somebody" in str(one) for one in provisioner.view.sandbox("a")))
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


@pytest.mark.parametrize(
    ("rescue", "option"),
    [
        (rescue_by_renewal, "ttl_seconds"),
        pytest.param(rescue_by_touch, "idle_timeout_seconds", marks=pytest.mark.slow),
        pytest.param(rescue_by_create, "ttl_seconds", marks=pytest.mark.slow),
        pytest.param(rescue_by_create, "idle_timeout_seconds", marks=pytest.mark.slow),
        pytest.param(rescue_by_making_it_anew, "ttl_seconds", marks=pytest.mark.slow),
        pytest.param(rescue_by_making_it_anew, "idle_timeout_seconds", marks=pytest.mark.slow),
    ],
)
async def test_a_sandbox_renewed_used_or_recreated_before_its_deletion_is_kept(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    rescue: Callable[[Provisioner], Awaitable[None]],
) -> None:
    # The reaper of another process, which does not see this one's requests.
    ours, others = [await start_provisioner() for _ in range(2)]
    fields: dict[str, Any] = {option: 10}
    await create(ours, **fields)
    await until(lambda: others.view.is_fresh and None not in others.view.sandbox("a"))
    pass_time(monkeypatch, seconds=20)
    due = await reaper_of(others).due()
    assert len(due) == 1
    await rescue(ours)
    before = uid_of(cluster)
    assert await reaper_of(others).reap(due) == []
    assert uid_of(cluster) == before
    assert (await ours.get(f"{URL}/a")).status == 200
    assert cluster.get(*SERVICE) is not None


async def test_an_incomplete_sandbox_completed_before_its_deletion_is_kept(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = [await start_provisioner() for _ in range(2)]
    await create(ours)
    await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")
    await until(lambda: others.view.sandbox("a")[1] is None and others.view.sandbox("a")[0] is not None)
    pass_time(monkeypatch, hours=1)
    due = await reaper_of(others).due()
    assert len(due) == 1
    before = uid_of(cluster)
    await create(ours)
    assert await reaper_of(others).reap(due) == []
    assert uid_of(cluster) == before
    assert (await ours.get(f"{URL}/a")).status == 200


@pytest.mark.slow
async def test_two_concurrent_reapers_delete_exactly_the_due_sandboxes(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [await start_provisioner() for _ in range(2)]
    await asyncio.gather(*(create(two[n % 2], f"s{n}", ttl_seconds=10 if n < 6 else 0) for n in range(9)))
    await until(lambda: all(len(list(one.view.sandboxes())) == 9 for one in two))
    pass_time(monkeypatch, seconds=20)

    async def all_are_gone() -> bool:
        # A Pod with a new status since the reaper read it is left to the next round.
        await asyncio.gather(*(reaper_of(one).round(dry_run=False) for one in two))
        return len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 3

    await until(all_are_gone)
    assert {pod["metadata"]["name"] for pod in cluster.objects("Pod")} == {"sandbox-s6", "sandbox-s7", "sandbox-s8"}


@pytest.mark.slow
async def test_a_dry_run_prints_due_sandboxes_and_deletes_none(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, ttl_seconds=1)
    await create(provisioner, "b")
    await until(lambda: expiry.ttl_ends_at(cluster.get(*POD) or {}) <= expiry.present())

    async def reap(*arguments: str, **variables: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "provisioner.py"), "reap", *arguments),
            env={**provisioner.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
        )
        stdout, _ = await process.communicate()
        assert process.returncode == 0
        look_at("stdout of reap", stdout)
        return stdout.decode()

    assert "a: it expired at " in await reap("--dry-run")
    assert "a: it expired at " in await reap(REAPER_DRY_RUN="true")
    assert len(cluster.objects("Pod")) == 2
    printed = await reap()
    assert printed.startswith("a: it expired at ")
    assert printed.count(os.linesep) == 1
    await until(lambda: len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 1)
    assert await reap() == ""
