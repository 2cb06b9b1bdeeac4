"""Namespaces, default rights and further kinds in devcluster, through kubectl."""

from __future__ import annotations

from pathlib import Path

from devcluster import Cluster
from tests.kubectl import Kubectl, pod, service
from tests.waiting import until


async def test_a_namespace_gets_its_service_account_after_a_delay(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", service_account_after=1.0) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        assert (await kubectl("create", "namespace", "new")).rc == 0
        early = await kubectl.apply(pod(namespace="new"))
        assert 'error looking up service account new/default: serviceaccount "default" not found' in early.stderr
        await until(lambda: cluster.get("ServiceAccount", "new", "default"))
        assert (await kubectl.apply(pod(namespace="new"))).rc == 0


async def test_deleting_a_namespace_deletes_everything_in_it(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl("create", "namespace", "new")).rc == 0
    await until(lambda: cluster.get("ServiceAccount", "new", "default"))
    await kubectl.apply(pod(namespace="new"), service(namespace="new"))
    deleted = await kubectl("delete", "namespace", "new")
    assert deleted.rc == 0, deleted.stderr
    for kind in ("Pod", "Service", "ServiceAccount", "ConfigMap", "Event"):
        assert cluster.objects(kind, "new") == []
    assert cluster.get("Namespace", "", "new") is None
    again = await kubectl("create", "namespace", "new")
    assert again.rc == 0, again.stderr


async def test_by_default_rights_are_granted_and_there_are_no_quotas(kubectl: Kubectl) -> None:
    assert (await kubectl("auth", "can-i", "patch", "pods")).stdout == "yes\n"
    assert (await kubectl("get", "resourcequotas", "-o", "json")).json["items"] == []


async def test_config_maps_claims_and_network_policies_are_stored(cluster: Cluster, kubectl: Kubectl) -> None:
    meta = {"name": "x", "namespace": "default"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": meta,
            "spec": {"podSelector": {"matchLabels": {"a": "b"}}},
        },
    ]
    applied = await kubectl.apply(*objects)
    assert applied.rc == 0, applied.stderr
    policy = cluster.get("NetworkPolicy", "default", "x")
    assert policy is not None
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert (await kubectl("delete", "configmap/x", "pvc/x", "networkpolicy/x", "--wait=false")).rc == 0
    assert cluster.get("ConfigMap", "default", "x") is None
