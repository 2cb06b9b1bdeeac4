"""wait_seconds, with a real kubectl on devcluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.views import TamperedKubectl, until_fresh
from tests.kubectl import SPEED
from tests.waiting import until

NAMESPACE = "deer-flow"

WaitInState = Callable[..., Awaitable[dict[str, Any]]]


async def wait_for(provisioner: Provisioner, sandbox_id: str = "a", seconds: float = 20) -> dict[str, Any]:
    response = await provisioner.get(f"{URL}/{sandbox_id}?wait_seconds={seconds}")
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


@pytest.fixture
async def idle_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a cluster that starts no container, so that a Pod stays in the state that a test sets."""
    async with Cluster(directory=tmp_path / "idle", start_after=36_000, speed=SPEED) as cluster:
        yield cluster


@pytest.fixture
def wait_in_state(start_provisioner: StartProvisioner, idle_cluster: Cluster) -> WaitInState:
    """Return a function that waits for a sandbox, puts it into a state meanwhile, and returns the response."""

    async def wait(state: str, **variables: str) -> dict[str, Any]:
        provisioner = await start_provisioner(cluster=idle_cluster, **variables)
        await create(provisioner)
        waiting = asyncio.create_task(wait_for(provisioner))
        await until(lambda: is_waited_for("a"))
        idle_cluster.put_pod_into(NAMESPACE, "sandbox-a", state)
        async with asyncio.timeout(60):
            return await waiting

    return wait


@pytest.mark.parametrize("live_view", ["true", pytest.param("false", marks=pytest.mark.slow)])
async def test_a_create_with_wait_seconds_returns_a_ready_sandbox(
    start_provisioner: StartProvisioner, live_view: str
) -> None:
    provisioner = await start_provisioner(LIVE_VIEW=live_view)
    answer = await create(provisioner, wait_seconds=20)
    assert (answer["status"], answer["ready"], answer["url_checked"]) == ("Running", True, True)
    again = await create(provisioner, wait_seconds=20)
    assert again == answer


async def test_a_wait_ends_when_the_sandbox_becomes_ready(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.server_takes(20)  # 2 s here
    first = await create(provisioner)
    assert first["ready"] is False
    answer = await wait_for(provisioner)
    assert (answer["ready"], answer["url_checked"]) == (True, True)


async def test_a_wait_that_times_out_returns_the_unready_sandbox(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.server_takes(600)
    answer = await create(provisioner, wait_seconds=0.5)
    assert (answer["ready"], answer["url_checked"]) == (False, False)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("err-image-pull", "ErrImagePull"),
        pytest.param("image-pull-backoff", "ImagePullBackOff", marks=pytest.mark.slow),
    ],
)
async def test_an_image_pull_error_ends_the_wait(wait_in_state: WaitInState, state: str, reason: str) -> None:
    answer = await wait_in_state(state)
    assert (answer["status"], answer["ready"]) == ("Pending", False)
    # a wait may end at ErrImagePull, which comes first
    assert answer["reason"] in {"ErrImagePull", reason}
    assert answer["message"]


async def test_a_crash_loop_ends_the_wait(wait_in_state: WaitInState) -> None:
    answer = await wait_in_state("crash-loop")
    assert (answer["status"], answer["ready"]) == ("Failed", False)
    assert answer["reason"]


@pytest.mark.parametrize("state", ["failed", pytest.param("succeeded", marks=pytest.mark.slow)])
async def test_an_ended_pod_ends_the_wait(wait_in_state: WaitInState, state: str) -> None:
    answer = await wait_in_state(state)
    assert (answer["status"], answer["ready"]) == (state.capitalize(), False)


async def test_an_unschedulable_pod_ends_the_wait_after_fail_fast_after(wait_in_state: WaitInState) -> None:
    answer = await wait_in_state("unschedulable", FAIL_FAST_AFTER="1")
    assert (answer["status"], answer["ready"]) == ("Pending", False)


async def test_a_failed_mount_ends_the_wait_with_the_message_of_its_event(wait_in_state: WaitInState) -> None:
    answer = await wait_in_state("failed-mount")
    assert (answer["status"], answer["ready"], answer["reason"]) == ("Pending", False, "FailedMount")
    assert answer["message"].startswith("MountVolume.SetUp failed")


async def test_a_delete_during_the_wait_is_404(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.server_takes(600)
    await create(provisioner)
    await until_fresh(provisioner)
    waiting = asyncio.create_task(provisioner.get(f"{URL}/a?wait_seconds=20"))
    await until(lambda: is_waited_for("a"))
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    async with asyncio.timeout(60):
        assert (await waiting).status == 404


def is_waited_for(sandbox_id: str) -> bool:
    """Return whether the service has a wait for the sandbox."""
    return any(task.get_name() == f"wait for sandbox {sandbox_id}" for task in asyncio.all_tasks())


@pytest.mark.slow
@pytest.mark.deadlines(url_unreached=0.5)
async def test_an_unreachable_url_is_not_a_failure(start_provisioner: StartProvisioner) -> None:
    provisioner = await start_provisioner(NODE_HOST="127.0.0.2")
    answer = await create(provisioner, wait_seconds=20)
    assert (answer["ready"], answer["url_checked"]) == (True, False)


@pytest.mark.slow
async def test_two_hundred_waits_start_no_process_and_all_succeed(
    start_provisioner: StartProvisioner, cluster: Cluster, tampered: TamperedKubectl
) -> None:
    cluster.server_takes(30)  # 3 s here
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until_fresh(provisioner)
    for sandbox_id in ("a", "b"):
        await create(provisioner, sandbox_id)
    await settled(tampered)
    before = tampered.calls()["other"]
    waiting = [asyncio.create_task(wait_for(provisioner, "ab"[number % 2])) for number in range(200)]
    answers = await asyncio.gather(*waiting)
    assert {(answer["ready"], answer["url_checked"]) for answer in answers} == {(True, True)}
    assert tampered.calls()["other"] == before


async def settled(tampered: TamperedKubectl) -> None:
    """Wait until all processes that are started ahead are running."""
    last = -1

    async def is_settled() -> bool:
        nonlocal last
        before, last = last, tampered.calls()["other"]
        await asyncio.sleep(0.3)
        return last == before == tampered.calls()["other"]

    await until(is_settled)
