"""A service whose clock is wrong: what it creates, refuses and deletes is what it would be with the right time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from devcluster import Cluster
from sandboxes import expiry
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.cli import reap
from sandboxes.settings import Settings
from tests.contract.faults import refuse_next
from tests.contract.lives import POD, SERVICE, annotations_of, get_sandbox, nothing_left, pass_time, reaper_of, uid_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reaper")]

SKEWS = [-3600, 60, 3600]


@pytest.fixture(params=SKEWS)
def skew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the service's clock be so many seconds ahead."""
    seconds: int = request.param
    pass_time(monkeypatch, seconds=seconds)
    return seconds


async def is_settled(provisioner: Provisioner) -> None:
    await until(lambda: not provisioner.client.app[SANDBOX_SERVICE].is_settling)


@pytest.mark.deadlines(others_service=0.0)
async def test_a_refused_create_leaves_nothing(skew: int, provisioner: Provisioner, cluster: Cluster) -> None:
    assert skew
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
    await is_settled(provisioner)
    await until(lambda: nothing_left(cluster))


@pytest.mark.slow
@pytest.mark.deadlines(others_service=0.0)
async def test_a_clock_that_is_set_while_the_service_runs_leaves_nothing_either(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, "before")
    for seconds in SKEWS:
        pass_time(monkeypatch, seconds=seconds)
        refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
        assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
        await is_settled(provisioner)
        await until(lambda: cluster.get(*POD) is None)
    assert [pod["metadata"]["name"] for pod in cluster.objects("Pod")] == ["sandbox-before"]


@pytest.mark.deadlines(undo=0.3, settle_pause=0.1)
async def test_what_a_refused_create_made_is_gone_when_the_cluster_is_back(
    skew: int, provisioner: Provisioner, cluster: Cluster
) -> None:
    assert skew
    refuse_next(cluster, "patch", "services", "apply-quota-exceeded")
    cluster.faults.answer(503, verb="delete")
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 429
    cluster.faults.clear()
    await until(lambda: nothing_left(cluster))


async def test_a_pod_of_a_replica_whose_clock_is_behind_is_confirmed_before_it_is_returned(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica may still roll it back, however old its time says that it is."""
    maker, other = [await start_provisioner() for _ in range(2)]
    pass_time(monkeypatch, hours=-1)
    await create(maker)
    pass_time(monkeypatch, seconds=0)
    await until(lambda: other.view.is_fresh and None not in other.view.sandbox("a"))
    await create(other)
    assert "provisioner/confirmed-at" in annotations_of(cluster)


async def test_a_whole_sandbox_that_is_not_idle_stays(
    skew: int, start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    assert skew
    provisioner = await start_provisioner(REAPER_GRACE="1")
    await create(provisioner, idle_timeout_seconds=30, ttl_seconds=30)
    before = uid_of(cluster)
    for must_last in (True, False):
        assert await reaper_of(provisioner).round(dry_run=False, halves_must_last=must_last) == []
    assert uid_of(cluster) == before
    assert (await get_sandbox(provisioner))["status"] in ("Pending", "Running")


async def test_an_idle_sandbox_is_deleted_when_its_time_is_over(
    skew: int, provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(provisioner, idle_timeout_seconds=30)
    pass_time(monkeypatch, seconds=skew + 20)
    assert await reaper_of(provisioner).due() == []
    pass_time(monkeypatch, seconds=skew + 31)
    [due] = await reaper_of(provisioner).due()
    assert due.kind == "idle"


@pytest.mark.parametrize("lost", ["pod/sandbox-a", "service/sandbox-a-svc"])
async def test_a_half_is_deleted_when_it_was_seen_for_its_grace_and_not_before(
    skew: int, start_provisioner: StartProvisioner, kubectl: Kubectl, lost: str
) -> None:
    assert skew
    provisioner = await start_provisioner(REAPER_GRACE="1")
    await create(provisioner)
    await kubectl("delete", lost, "-n", "deer-flow", "--grace-period=0", "--force")
    await until(lambda: provisioner.view.is_fresh and None in provisioner.view.sandbox("a"))
    reaper = reaper_of(provisioner)
    began = asyncio.get_running_loop().time()
    assert await reaper.due(halves_must_last=True) == []

    async def is_due() -> bool:
        return bool(await reaper.due(halves_must_last=True))

    await until(is_due)
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_half_on_which_another_create_works_has_its_grace_anew(
    start_provisioner: StartProvisioner, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(REAPER_GRACE="1")
    await create(provisioner)
    await kubectl("delete", f"service/{SERVICE[2]}", "-n", "deer-flow")
    await until(lambda: provisioner.view.sandbox("a")[1] is None)
    reaper = reaper_of(provisioner)

    async def is_due() -> bool:
        return bool(await reaper.due(halves_must_last=True))

    await until(is_due)
    mark = f"provisioner/confirmed-at={expiry.text_of(datetime.now(UTC) - timedelta(hours=1))}"
    assert (await kubectl("annotate", "pod/sandbox-a", "-n", "deer-flow", mark, "--overwrite")).rc == 0
    await until(lambda: "confirmed-at" in str(provisioner.view.sandbox("a")[0]))
    assert not await is_due()


async def test_what_ended_just_now_is_kept_for_its_time(
    skew: int, start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    assert skew
    provisioner = await start_provisioner(ENDED_TTL="600")
    await create(provisioner)
    cluster.set_pod("deer-flow", "sandbox-a", phase="Failed", reason="Error", exit_code=1)

    async def failed() -> bool:
        return bool((await get_sandbox(provisioner))["status"] == "Failed")

    await until(failed)
    assert await reaper_of(provisioner).due(halves_must_last=True) == []


@pytest.mark.parametrize("lost", ["pod/sandbox-a", "service/sandbox-a-svc"])
async def test_a_single_round_keeps_a_half_for_its_grace_by_the_clusters_clock(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    await create(provisioner)
    await kubectl("delete", lost, "-n", "deer-flow", "--grace-period=0", "--force")
    await until(lambda: None in (cluster.get(*POD), cluster.get(*SERVICE)))
    pass_time(monkeypatch, hours=1)
    assert await reap(Settings.load(), dry_run=False) == []
    assert not nothing_left(cluster)
