"""`force` with a real kubectl: devcluster removes a Pod at once for a delete with grace 0, as recorded."""

from __future__ import annotations

import json

import pytest

from devcluster import Cluster
from tests.contract.lives import POD, nothing_left, pass_time, uid_of
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl
from tests.record import case

pytestmark = pytest.mark.slow

# As the control plane writes it when the node's kubelet is silent.
LOST = {"status": {"phase": "Running", "conditions": case("pod-node-lost").stdout["status"]["conditions"]}}


async def lose(provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl) -> str | None:
    """Let the node of sandbox `a` be lost, whose containers ignore every signal; return its Pod's uid."""
    cluster.put_pod_into("deer-flow", "sandbox-a", "ready")
    patch = (
        "patch",
        "pod/sandbox-a",
        "-n",
        "deer-flow",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps(LOST),
    )
    assert (await kubectl(*patch)).rc == 0

    async def is_unknown() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json())["status"] == "Unknown")

    await until(is_unknown)
    return uid_of(cluster)


async def test_a_lost_sandbox_is_deleted_and_replaced_by_force(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    cluster.stopping_takes(3600)
    provisioner = await start_provisioner(ALLOW_FIELDS="force")
    await create(provisioner)
    old = await lose(provisioner, cluster, kubectl)
    response = await provisioner.post(URL, json={"sandbox_id": "a", "force": True})
    assert response.status == 200
    assert "may still run" in (await response.json())["warning"]
    assert uid_of(cluster) not in (None, old)

    await lose(provisioner, cluster, kubectl)
    response = await provisioner.delete(f"{URL}/a?force=true")
    assert response.status == 200
    assert "may still run" in (await response.json())["warning"]
    await until(lambda: nothing_left(cluster))


@pytest.mark.deadlines(overdue=0.1)
async def test_a_pod_past_the_end_of_its_deletion_is_replaced_by_force_and_not_before(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    """A finalizer keeps the Pod after its grace period, as a lost node does."""
    provisioner = await start_provisioner(ALLOW_FIELDS="force")
    await create(provisioner)
    finalizer = json.dumps({"metadata": {"finalizers": ["example.com/keep"]}})
    assert (await kubectl("patch", "pod/sandbox-a", "-n", "deer-flow", "--type=merge", "-p", finalizer)).rc == 0
    assert (await provisioner.delete(f"{URL}/a?force=true")).status == 409
    assert (await provisioner.delete(f"{URL}/a")).status == 200

    async def is_late() -> bool:
        return (await provisioner.delete(f"{URL}/a?force=true")).status == 200

    await until(is_late)
    pod = cluster.get(*POD)
    assert pod is not None
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 0


@pytest.mark.usefixtures("without_reaper")
@pytest.mark.parametrize("skew", [-3600, 3600])
async def test_the_end_of_a_deletion_is_judged_by_the_clusters_clock(
    skew: int, start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer keeps the Pod after its grace period, as a lost node does."""
    pass_time(monkeypatch, seconds=skew)
    provisioner = await start_provisioner(ALLOW_FIELDS="force")
    await create(provisioner)
    finalizer = json.dumps({"metadata": {"finalizers": ["example.com/keep"]}})
    assert (await kubectl("patch", "pod/sandbox-a", "-n", "deer-flow", "--type=merge", "-p", finalizer)).rc == 0
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    provisioner.set_deadlines(overdue=1000.0)
    assert (await provisioner.delete(f"{URL}/a?force=true")).status == 409
    provisioner.set_deadlines(overdue=0.1)

    async def is_late() -> bool:
        return (await provisioner.delete(f"{URL}/a?force=true")).status == 200

    await until(is_late)
    pod = cluster.get(*POD)
    assert pod is not None
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 0
