"""Objects that a rollback has marked and not deleted yet: two replicas, a real kubectl, and a cluster with faults."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import kmock
import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.errors import ClusterRefused
from sandboxes.expiry import present, text_of
from tests.contract.faults import recorded_refusal
from tests.contract.lives import is_ready, nothing_left
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.starts_in_full, pytest.mark.usefixtures("without_reaper")]

# pkg/admission/plugin/webhook/errors
DENIED = 'admission webhook "keep.example.com" denied the request: kept'
IDS = [f"s{number}" for number in range(3)]


async def test_a_sandbox_made_after_a_delete_survives_the_rollback_of_its_predecessor(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    """The rollback deletes by name, so no process may free the name while that can still be under way."""
    maker, other = [await start_provisioner() for _ in range(2)]
    for one in IDS:
        await create(maker, one)
    # A rollback marks the version that it has read.
    await until(lambda: all(is_ready(pod) for pod in cluster.objects("Pod")))
    through = maker.client.app[SANDBOX_SERVICE].cluster
    pairs = [[obj for obj in await through.look(one) if obj is not None] for one in IDS]
    cluster.faults.slow(3.0, verb="delete", resource="pods", times=1)
    discards = [asyncio.create_task(through.discard(pair)) for pair in pairs]
    await until(lambda: all(kube.is_refused(pod) for pod in cluster.objects("Pod")))
    await until(lambda: any(request.method.value == "DELETE" for request in cluster.kmock.requests))
    assert (await other.delete(f"{URL}/s2")).status == 200
    await create(other, "s2")
    await asyncio.gather(*discards)
    assert (await other.get(f"{URL}/s2")).status == 200
    assert cluster.get("Pod", "deer-flow", "sandbox-s2") is not None
    assert cluster.get("Service", "deer-flow", "sandbox-s2-svc") is not None


@pytest.mark.deadlines(marked=1.0)
async def test_a_delete_frees_what_a_rollback_has_marked_and_left(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, "a")
    through = provisioner.client.app[SANDBOX_SERVICE].cluster
    pod, _ = await through.look("a")
    assert pod is not None
    # By a replica whose clock is an hour ahead, and that has ended since.
    marked_at = text_of(present() + timedelta(hours=1))
    await through.annotate(pod, {kube.REFUSED_ANNOTATION: marked_at}, manager="rollback")
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await until(lambda: nothing_left(cluster))


async def test_a_lasting_refusal_to_delete_marked_objects_ends_their_rollback(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    """A validating webhook refuses deletes. The API server compares the preconditions before it asks a webhook.

    The deletes alone must have the versions that the marks have made, else each try of the rollback needs another.
    """
    for one in IDS:
        await create(provisioner, one)
    await until(lambda: all(is_ready(pod) for pod in cluster.objects("Pod")))

    def refuse(request: kmock.Request) -> kmock.KubernetesError:
        kind = "Service" if str(request.name).endswith("-svc") else "Pod"
        obj = cluster.get(kind, "deer-flow", str(request.name))
        assert obj is not None
        data = request.data if isinstance(request.data, dict) else {}
        version = (data.get("preconditions") or {}).get("resourceVersion")
        if version not in (None, obj["metadata"]["resourceVersion"]):
            return recorded_refusal("delete-precondition-stale")
        return kmock.KubernetesError(403, "Forbidden", DENIED, {})

    through = provisioner.client.app[SANDBOX_SERVICE].cluster
    pairs = [[obj for obj in await through.look(one) if obj is not None] for one in IDS]
    cluster.kmock["delete"] << refuse
    outcomes = await asyncio.gather(*(through.discard(pair) for pair in pairs), return_exceptions=True)
    assert [type(one) for one in outcomes] == [ClusterRefused] * len(IDS)
