"""The process pool and batching, on devcluster: fewer calls, and separate results for each caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import kmock
import pytest
import yaml

from devcluster import Cluster
from sandboxes.deadlines import DEADLINES
from tests.contract.faults import recorded_refusal
from tests.contract.processes import (
    PROVISIONER,
    command_of,
    environment,
    free_port,
    healthy,
    kill_each,
    processes_with,
    running,
)
from tests.contract.service import KUBECTL, URL, Provisioner, StartProvisioner, create
from tests.contract.views import watches
from tests.marker import MARKER
from tests.waiting import until

pytestmark = pytest.mark.starts_in_full


@pytest.fixture
def counting_kubectl(tmp_path: Path) -> Path:
    """A kubectl that records each of its starts in a file."""
    script = tmp_path / "counting-kubectl"
    script.write_text(f'#!/bin/sh\necho "$3 $4" >> {tmp_path}/starts\nexec {KUBECTL} "$@"\n')
    script.chmod(0o755)
    return script


def starts(tmp_path: Path) -> Counter[str]:
    """Count kubectl's starts by verb, processes started ahead included."""
    return Counter(line.split()[0] for line in (tmp_path / "starts").read_text().splitlines())


def waiting_processes(tmp_path: Path) -> list[int]:
    return [pid for pid in processes_with(str(tmp_path)) if b"-f\0-" in command_of(pid)]


async def test_four_processes_wait_ahead_and_end_with_the_service(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    provisioner = await start_provisioner()
    await until(lambda: len(waiting_processes(tmp_path)) == 4)
    await create(provisioner)
    await until(lambda: len(waiting_processes(tmp_path)) == 4)
    await provisioner.client.close()
    assert processes_with(str(tmp_path)) == []


async def test_creates_and_lists_work_without_pool_batching_and_live_view(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(KUBECTL_START_AHEAD="false", KUBECTL_GROUP="false", LIVE_VIEW="false")
    answers = await asyncio.gather(*(create(provisioner, f"s{n}") for n in range(5)))
    assert len({answer["sandbox_url"] for answer in answers}) == 5
    assert (await (await provisioner.get(URL)).json())["count"] == 5
    assert processes_with(str(tmp_path)) == []


async def test_killed_waiting_processes_are_replaced_and_the_create_succeeds(
    provisioner: Provisioner, tmp_path: Path
) -> None:
    await until(lambda: len(waiting_processes(tmp_path)) == 4)
    kill_each(waiting_processes(tmp_path))
    await create(provisioner)
    await until(lambda: len(waiting_processes(tmp_path)) == 4)


@pytest.mark.deadlines(pool_tick=3600)
async def test_a_token_changed_in_the_kubeconfig_is_used_by_the_next_create(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "rotating"
    good = cluster.kubeconfig.read_text()
    bad = yaml.safe_load(good)
    bad["users"][0]["user"]["token"] = MARKER
    kubeconfig.write_text(yaml.safe_dump(bad))
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(kubeconfig))
    await until(lambda: len(waiting_processes(tmp_path)) == 4)
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 502

    await until(lambda: len(waiting_processes(tmp_path)) == 4)
    kubeconfig.write_text(good)  # the waiting processes have read the old token
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 200


@pytest.mark.slow
@pytest.mark.deadlines(pool_tick=0.05, pool_age=0.5)
async def test_waiting_processes_are_replaced_when_old_or_the_kubeconfig_changes(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "changing"
    kubeconfig.write_text(cluster.kubeconfig.read_text())
    await start_provisioner(KUBECONFIG_PATH=str(kubeconfig))
    await until(lambda: waiting_processes(tmp_path))
    before = set(waiting_processes(tmp_path))
    kubeconfig.write_text(cluster.kubeconfig.read_text() + "\n")
    await until(lambda: waiting_processes(tmp_path) and not before & set(waiting_processes(tmp_path)))

    before = set(waiting_processes(tmp_path))
    await until(lambda: not before & set(waiting_processes(tmp_path)))


@pytest.mark.slow
async def test_fifty_concurrent_creates_and_deletes_take_fewer_than_forty_calls_each(
    start_provisioner: StartProvisioner, counting_kubectl: Path, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(counting_kubectl))
    before = starts(tmp_path)["apply"]
    answers = await asyncio.gather(*(create(provisioner, f"s{n}") for n in range(50)))
    assert len({answer["sandbox_url"] for answer in answers}) == 50
    assert starts(tmp_path)["apply"] - before < 40
    deletes = await asyncio.gather(*(provisioner.delete(f"{URL}/s{n}") for n in range(50)))
    assert {response.status for response in deletes} == {200}
    assert starts(tmp_path)["delete"] < 40


@pytest.mark.slow
async def test_one_rejected_create_of_fifty_gets_its_own_error(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.kmock["patch", kmock.resource("v1/pods"), kmock.name("sandbox-s7")] << recorded_refusal(
        "apply-quota-exceeded"
    )
    statuses = await asyncio.gather(*(post(provisioner, f"s{n}") for n in range(50)))
    assert Counter(statuses) == {200: 49, 429: 1}
    assert statuses[7] == 429
    assert (await provisioner.get(f"{URL}/s7")).status == 404
    await until(lambda: cluster.get("Service", "deer-flow", "sandbox-s7-svc") is None)
    assert len(cluster.objects("Pod")) == 49
    assert len(cluster.objects("Service")) == 49


async def post(provisioner: Provisioner, sandbox_id: str) -> int:
    return (await provisioner.post(URL, json={"sandbox_id": sandbox_id})).status


async def test_of_two_owners_of_one_id_in_a_batch_one_gets_409(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    first, second = await start_provisioner(), await start_provisioner()

    async def ask(n: int) -> tuple[int, int]:
        provisioner = (first, second)[n % 2]
        response = await provisioner.post(URL, json={"sandbox_id": f"s{n // 2}", "thread_id": f"t{n % 2}"})
        return n // 2, response.status

    outcomes = await asyncio.gather(*(ask(n) for n in range(20)))
    for sandbox in range(10):
        assert sorted(status for number, status in outcomes if number == sandbox) == [200, 409]
    assert len(cluster.objects("Pod")) == 10


@pytest.mark.slow
async def test_a_full_queue_is_503_at_once(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    limits = {"KUBECTL_MAX_PROCESSES": "2", "KUBECTL_MAX_WAITING": "3"}
    provisioner = await start_provisioner(deadlines=DEADLINES, **limits, LIVE_VIEW="false")
    cluster.faults.slow(3.0, verb="patch")  # the first Pod and Service take 6 s
    answered: list[int] = []

    async def ask(n: int) -> None:
        await asyncio.sleep(n * 0.05)  # spread the requests while the first are running
        answered.append(await post(provisioner, f"s{n}"))

    await asyncio.gather(*(ask(n) for n in range(20)))
    assert 200 in answered
    assert answered[0] == 503, answered


async def test_kubectl_processes_end_when_the_service_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log") as process:
        await until(healthy(port))
        await until(lambda: watches(tmp_path) and waiting_processes(tmp_path))
        process.kill()
        await process.wait()
        await until(lambda: processes_with(str(tmp_path)) == [])


async def until_nothing_left(cluster: Cluster) -> None:
    await until(lambda: cluster.objects("Pod") == [] and cluster.objects("Service") == [])


# On a busy machine some get 503 instead of 429: for each create that a full quota rejects, three processes start, one
# after another, and the last creates exceed their deadline.
@pytest.mark.slow
@pytest.mark.parametrize("resource", ["pods", "services"])
async def test_fifty_rejected_creates_leave_nothing(provisioner: Provisioner, cluster: Cluster, resource: str) -> None:
    cluster.kmock["patch", kmock.resource(f"v1/{resource}")] << recorded_refusal("apply-quota-exceeded")
    statuses = await asyncio.gather(*(post(provisioner, f"s{n}") for n in range(50)))
    assert set(statuses) == {429}
    await until_nothing_left(cluster)


@pytest.mark.slow
async def test_creates_without_a_free_node_port_are_429_and_leave_nothing(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    async with Cluster(directory=tmp_path / "small", node_port_range=range(31910, 31912), speed=10) as small:
        provisioner = await start_provisioner(cluster=small)
        statuses = Counter(await asyncio.gather(*(post(provisioner, f"s{n}") for n in range(20))))
        assert statuses == {200: 2, 429: 18}
        await until(lambda: len(small.objects("Pod")) == 2)
        assert len(small.objects("Service")) == 2


@pytest.mark.slow
async def test_a_rejected_pod_does_not_fail_the_other_creates(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.kmock["patch", kmock.resource("v1/pods"), kmock.name("sandbox-s3")] << recorded_refusal(
        "apply-nodeports-exhausted"
    )
    statuses = await asyncio.gather(*(post(provisioner, f"s{n}") for n in range(12)))
    assert Counter(statuses) == {200: 11, 429: 1}


@pytest.mark.slow
@pytest.mark.deadlines(batch_limit=0.5, create=1.0)
async def test_a_create_that_timed_out_is_not_applied_later(
    provisioner: Provisioner, start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    cluster.faults.hang(verb="patch", resource="services", times=1)
    assert await post(provisioner, "a") == 504
    await until_nothing_left(cluster)
    cluster.faults.clear()
    assert (await provisioner.get(f"{URL}/a")).status == 404
    await create(await start_provisioner(deadlines=DEADLINES))
