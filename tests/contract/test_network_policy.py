"""SANDBOX_NETWORK_POLICY=isolated: the policy is applied before the first sandbox; without it creates fail."""

from __future__ import annotations

import logging

import kmock
import pytest

from devcluster import Cluster, once
from tests.audit import PRODUCTION
from tests.contract.service import URL, StartProvisioner, create, until
from tests.kubectl import Kubectl

pytestmark = [pytest.mark.role(PRODUCTION), pytest.mark.starts_in_full]

NS = "deer-flow"
FORBIDDEN = kmock.KubernetesError(
    403,
    "Forbidden",
    'networkpolicies.networking.k8s.io "sandboxes-isolated" is forbidden: User "u" cannot patch resource '
    '"networkpolicies" in API group "networking.k8s.io" in the namespace "deer-flow"',
    {},
)


def policies(cluster: Cluster) -> list[str]:
    return [obj["metadata"]["name"] for obj in cluster.objects("NetworkPolicy")]


async def test_isolated_applies_the_policy_at_the_start(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    provisioner = await start_provisioner(
        SANDBOX_NETWORK_POLICY="isolated",
        SANDBOX_INGRESS_FROM="10.1.0.0/16,namespace:team=a/pod:app=backend",
        SANDBOX_CONTAINER_PORT="9000",
    )
    policy = cluster.get("NetworkPolicy", NS, "sandboxes-isolated")
    assert policy is not None
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 9000}]
    assert rule["from"][0] == {"ipBlock": {"cidr": "10.1.0.0/16"}}
    await create(provisioner)


@pytest.mark.slow
async def test_isolated_without_peers_blocks_all_ingress_and_warns(
    start_provisioner: StartProvisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")
    policy = cluster.get("NetworkPolicy", NS, "sandboxes-isolated")
    assert policy is not None
    assert not policy["spec"].get("ingress")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "blocks all ingress to the sandboxes" in caplog.text


async def test_off_applies_no_policy(start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl) -> None:
    await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")
    assert (await kubectl("delete", "networkpolicy", "sandboxes-isolated", "-n", NS)).rc == 0
    provisioner = await start_provisioner(SANDBOX_NETWORK_POLICY="off")
    await create(provisioner)
    assert policies(cluster) == []


async def test_creates_are_502_until_the_policy_can_be_applied(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    policies_resource = kmock.resource("networking.k8s.io/v1/networkpolicies")
    cluster.kmock["PATCH", policies_resource] << once(FORBIDDEN, FORBIDDEN)
    provisioner = await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    message = "The provisioner lacks the right to patch networkpolicies in the cluster"
    assert (response.status, await response.json()) == (502, {"detail": message})
    assert cluster.objects("Pod") == []
    await create(provisioner)
    assert policies(cluster) == ["sandboxes-isolated"]


@pytest.mark.slow
async def test_a_recreated_namespace_gets_the_policy_again(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")
    assert (await kubectl("delete", "namespace", NS, "--wait=false")).rc == 0
    await until(lambda: namespace_is_gone(cluster))
    await create(provisioner)
    assert policies(cluster) == ["sandboxes-isolated"]


async def namespace_is_gone(cluster: Cluster) -> bool:
    return cluster.get("Namespace", "", NS) is None


async def test_a_deleted_policy_is_restored_before_a_later_create(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")
    assert (await kubectl("delete", "networkpolicy", "sandboxes-isolated", "-n", NS)).rc == 0
    await create(provisioner, "a")
    assert policies(cluster) == []  # an apply is valid for a while
    provisioner.set_deadlines(policy_confirmed=0.0)
    await create(provisioner, "b")
    assert policies(cluster) == ["sandboxes-isolated"]
