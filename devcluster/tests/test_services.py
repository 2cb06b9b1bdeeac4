"""What devcluster refuses in a Service beyond the record, and what it drops when the type changes."""

from __future__ import annotations

from typing import Any

import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, service


@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
async def test_source_ranges_are_refused_unless_the_type_is_load_balancer(kubectl: Kubectl, kind: str) -> None:
    ranges: dict[str, Any] = {"loadBalancerSourceRanges": ["10.0.0.0/8"]}
    refused = await kubectl.apply(service(type=kind, **ranges))
    assert "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'" in refused.stderr
    assert (await kubectl.apply(service(type="LoadBalancer", **ranges))).rc == 0


async def test_a_node_port_is_dropped_when_the_type_has_none_any_more(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl.apply(service(type="NodePort"))).json["spec"]["ports"][0]["nodePort"]
    changed = (await kubectl.apply(service(type="ClusterIP"), manager="other")).json
    assert "nodePort" not in changed["spec"]["ports"][0]
    assert cluster.get("Service", "default", changed["metadata"]["name"]) is not None


async def test_a_service_without_a_cluster_ip_can_not_become_one_with_node_ports(kubectl: Kubectl) -> None:
    assert (await kubectl.apply(service(type="ClusterIP", clusterIP="None"))).rc == 0
    refused = await kubectl.apply(service(type="NodePort"), manager="other")
    assert "spec.clusterIPs[0]" in refused.stderr
    assert "may not be set to 'None' for NodePort services" in refused.stderr
