"""Claims, network policies and runtime classes in devcluster, with Kubernetes' validation messages."""

from __future__ import annotations

from typing import Any

import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, pod
from tests.waiting import until


def claim(**spec: Any) -> dict[str, Any]:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    meta = {"name": "data", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": whole}


def policy(**spec: Any) -> dict[str, Any]:
    meta = {"name": "x", "namespace": "default"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


async def test_a_claim_gets_the_default_storage_class_and_is_bound_later(cluster: Cluster, kubectl: Kubectl) -> None:
    made = await kubectl("create", "-f", "-", "-o", "json", stdin=claim())
    assert made.json["spec"]["storageClassName"] == "standard"
    assert made.json["status"]["phase"] == "Pending"
    await until(lambda: is_bound(cluster))
    again = await kubectl("create", "-f", "-", stdin=claim())
    message = (
        'Error from server (AlreadyExists): error when creating "STDIN": persistentvolumeclaims "data" already exists\n'
    )
    assert again.stderr == message


async def is_bound(cluster: Cluster) -> bool:
    found = cluster.get("PersistentVolumeClaim", "default", "data")
    return found is not None and found["status"]["phase"] == "Bound"


async def test_a_deleted_claim_stays_until_no_pod_uses_it(cluster: Cluster, kubectl: Kubectl) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    await kubectl.apply(claim(), pod(nodeSelector={"park": "here"}, volumes=[volume]))
    assert (await kubectl("delete", "pvc", "data", "--wait=false")).rc == 0
    found = cluster.get("PersistentVolumeClaim", "default", "data")
    assert found is not None
    assert "deletionTimestamp" in found["metadata"]
    assert (await kubectl("delete", "pod", "x")).rc == 0
    await until(lambda: is_deleted(cluster))


async def is_deleted(cluster: Cluster) -> bool:
    return cluster.get("PersistentVolumeClaim", "default", "data") is None


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (claim(accessModes=[]), "spec.accessModes: Required value: at least 1 access mode is required"),
        (claim(resources={}), "spec.resources[storage]: Required value"),
        (
            policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]),
            'spec.egress[0].to[0].ipBlock.cidr: Invalid value: "10.0.0.0/33": must be a valid CIDR value',
        ),
        (
            policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]),
            'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`',
        ),
        (policy(policyTypes=["Both"]), 'spec.policyTypes: Unsupported value: "Both"'),
    ],
)
async def test_invalid_claims_and_network_policies_are_rejected(
    kubectl: Kubectl, obj: dict[str, Any], message: str
) -> None:
    result = await kubectl.apply(obj)
    assert result.rc == 1
    assert message in result.stderr


async def test_a_claims_spec_is_immutable(kubectl: Kubectl) -> None:
    assert (await kubectl.apply(claim())).rc == 0
    result = await kubectl.apply(claim(accessModes=["ReadWriteMany"]))
    assert "spec: Forbidden: spec is immutable after creation" in result.stderr


async def test_an_apply_with_the_uid_of_a_missing_object_creates_nothing(cluster: Cluster, kubectl: Kubectl) -> None:
    metadata = {"name": "x", "namespace": "default", "uid": "1-2", "annotations": {"a": "b"}}
    result = await kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    assert "uid mismatch: the provided object specified uid 1-2, and no existing object was found" in result.stderr
    assert cluster.get("ConfigMap", "default", "x") is None


async def test_a_pod_with_a_missing_runtime_class_is_rejected(kubectl: Kubectl) -> None:
    made = pod()
    made["spec"]["runtimeClassName"] = "gvisor"
    result = await kubectl.apply(made)
    assert 'pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found' in result.stderr
