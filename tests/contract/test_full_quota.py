"""What creates cost that the cluster refuses one by one: a real kubectl, and devcluster with recorded refusals."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import kmock
import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import PreconditionFailed
from sandboxes.expiry import present, text_of
from tests.contract.faults import recorded_refusal
from tests.contract.lives import is_ready
from tests.contract.service import KUBECTL, URL, Provisioner, StartProvisioner
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.starts_in_full, pytest.mark.usefixtures("without_reaper")]


@pytest.fixture
async def counted(start_provisioner: StartProvisioner, tmp_path: Path) -> Provisioner:
    """A service without waiting processes, so that each start of kubectl is a call."""
    script = tmp_path / "counted-kubectl"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/starts\nexec {KUBECTL} "$@"\n')
    script.chmod(0o755)
    provisioner = await start_provisioner(KUBECTL=str(script), KUBECTL_START_AHEAD="false")
    await until(lambda: provisioner.view.is_fresh)
    return provisioner


def starts(tmp_path: Path) -> Counter[str]:
    """Count kubectl's starts by verb, without watches and lists."""
    lines = [line for line in (tmp_path / "starts").read_text().splitlines() if "get --raw" not in line]
    return Counter(verb for line in lines for verb in ("apply", "get", "delete") if f" {verb} " in f" {line} ")


def of_each(name: str) -> Callable[[kmock.Request], kmock.KubernetesError]:
    """Return a refusal as in the recorded case `name`, which names the object, as the API server's does."""
    recorded = recorded_refusal(name)

    def answer(request: kmock.Request) -> kmock.KubernetesError:
        resource = "services" if str(request.name).endswith("-svc") else "pods"
        message = (recorded.message or "").replace("sandbox-over", str(request.name)).replace("pods", resource)
        return kmock.KubernetesError(recorded.status, recorded.reason, message, {})

    return answer


async def post(provisioner: Provisioner, sandbox_id: str, **fields: object) -> int:
    return (await provisioner.post(URL, json={"sandbox_id": sandbox_id, **fields})).status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resource", "refusal"),
    [
        ("pods", "apply-quota-exceeded"),
        ("services", "apply-quota-exceeded"),
        ("services", "apply-nodeports-exhausted"),
    ],
)
async def test_fifty_refused_creates_are_429_leave_nothing_and_start_few_processes(
    counted: Provisioner, cluster: Cluster, tmp_path: Path, resource: str, refusal: str
) -> None:
    cluster.kmock["patch", kmock.resource(f"v1/{resource}")] << of_each(refusal)
    began: Counter[str] = Counter()
    batched = counted.client.app[SANDBOX_SERVICE].cluster.batched
    assert batched is not None
    batched.began.connect(lambda work, _number: began.update([work]))
    before = starts(tmp_path)
    statuses = await asyncio.gather(*(post(counted, f"s{n}") for n in range(50)))
    assert set(statuses) == {429}
    await until(lambda: cluster.objects("Pod") == [] and cluster.objects("Service") == [])
    made = starts(tmp_path) - before
    assert made.total() <= 4 * (began["apply"] if resource == "pods" else began.total()), made


async def test_a_create_meanwhile_makes_anew_what_a_rollback_is_about_to_delete(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    """The other process has seen the sandboxes whole, and confirms what it finds; the answer shows the mark."""
    maker, other = [await start_provisioner() for _ in range(2)]
    ids = [f"s{number}" for number in range(3)]
    assert {await post(maker, one) for one in ids} == {200}
    await until(lambda: other.view.is_fresh and all(None not in other.view.sandbox(one) for one in ids))
    # A rollback marks the version that it has read.
    await until(lambda: all(is_ready(pod) for pod in cluster.objects("Pod")))
    before = {obj["metadata"]["uid"] for kind in ("Pod", "Service") for obj in cluster.objects(kind)}
    cluster.faults.silence_watches()
    cluster.faults.slow(1.0, verb="delete", resource="pods")
    through = maker.client.app[SANDBOX_SERVICE].cluster
    pairs = [[obj for obj in await through.look(one) if obj is not None] for one in ids]
    discards = [asyncio.create_task(through.discard(pair)) for pair in pairs]
    await until(lambda: all(kube.is_refused(pod) for pod in cluster.objects("Pod")))
    assert await asyncio.gather(*(post(other, one) for one in ids)) == [200] * 3
    await asyncio.gather(*discards)
    after = [obj["metadata"]["uid"] for kind in ("Pod", "Service") for obj in cluster.objects(kind)]
    assert len(after) == 6
    assert before.isdisjoint(after)


@pytest.mark.deadlines(settle=0.1)
async def test_the_reaper_deletes_what_a_rollback_has_marked_and_not_deleted(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(REAPER_GRACE="1")
    assert await post(provisioner, "a") == 200
    service = provisioner.client.app[SANDBOX_SERVICE]
    pod, _ = await service.cluster.look("a")
    assert pod is not None
    marked_at = text_of(present() - timedelta(seconds=DEADLINES.marked))
    await service.cluster.annotate(pod, {kube.REFUSED_ANNOTATION: marked_at}, manager="rollback")
    assert (await provisioner.get(f"{URL}/a")).status == 404

    async def reaped() -> bool:
        return bool(await service.reaper.round(dry_run=False))

    await until(reaped)
    await until(lambda: cluster.objects("Pod") == [] and cluster.objects("Service") == [])


async def test_what_was_changed_meanwhile_is_not_marked(provisioner: Provisioner, cluster: Cluster) -> None:
    """The API server checks the resourceVersion that an apply names (record: apply-annotation-only-stale-version)."""
    through = provisioner.client.app[SANDBOX_SERVICE].cluster
    pods = []
    for number in range(3):
        assert await post(provisioner, f"s{number}") == 200
        pod, _ = await through.look(f"s{number}")
        assert pod is not None
        pods.append(pod)
    await through.annotate(pods[1], {kube.CONFIRMED_ANNOTATION: text_of(present())}, manager="confirmation")
    outcomes = await asyncio.gather(*(through.discard([pod]) for pod in pods), return_exceptions=True)
    assert [type(one) for one in outcomes[1:2]] == [PreconditionFailed]
    kept = cluster.get("Pod", "deer-flow", "sandbox-s1")
    assert kept is not None
    assert not kube.is_terminating(kept)
