"""The NetworkPolicy of all sandboxes: allowed ingress and egress."""

from __future__ import annotations

import copy
import functools
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from sandboxes.spec.network_policy import build_policy, load_policy
from tests.conftest import ROOT

POLICY = ROOT / "manifests" / "network-policy" / "isolated.yaml"
MakeSettings = Callable[..., Settings]


@functools.cache
def shipped_policy() -> dict[str, Any]:
    return load_policy(POLICY)


def built(settings: Settings) -> dict[str, Any]:
    return build_policy(copy.deepcopy(shipped_policy()), settings)


def allows_egress_to(policy: dict[str, Any], address: str) -> bool:
    """Whether an egress rule without selectors allows the address, by Kubernetes' rules for ipBlock."""
    found = ipaddress.ip_address(address)
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    return any(
        found in ipaddress.ip_network(block["cidr"])
        and not any(found in ipaddress.ip_network(one) for one in block["except"])
        for block in blocks
    )


PRIVATE = [
    "0.0.0.1", "10.0.0.1", "10.96.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "240.0.0.1",
    "255.255.255.255",
    "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a9fe:a9fe",
    "fc00::1", "fd00:ec2::254", "fe80::1", "ff02::1", "100::1", "2001:0:a00:1::", "2001:2::1", "2001:db8::1",
    "2002:a00:1::", "2002:a9fe:a9fe::1", "3fff::1", "4000::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_egress_to_private_and_reserved_addresses_is_blocked(make_settings: MakeSettings, address: str) -> None:
    assert not allows_egress_to(built(make_settings()), address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2606:4700:4700::1111", "2a00::1"],
)
def test_egress_to_the_internet_is_allowed(make_settings: MakeSettings, address: str) -> None:
    assert allows_egress_to(built(make_settings()), address)


def test_every_exception_is_within_its_block(make_settings: MakeSettings) -> None:
    for rule in built(make_settings())["spec"]["egress"]:
        for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
            outer = ipaddress.ip_network(block["cidr"])
            assert all(ipaddress.ip_network(one).subnet_of(outer) for one in block["except"])  # type: ignore[arg-type]


def test_egress_to_the_clusters_dns_is_allowed_on_its_port_only(make_settings: MakeSettings) -> None:
    dns = built(make_settings())["spec"]["egress"][0]
    assert dns == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }


def test_ingress_is_blocked_by_default(make_settings: MakeSettings) -> None:
    spec = built(make_settings())["spec"]
    assert spec["ingress"] == []
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"] == {"matchLabels": {"app": "deer-flow-sandbox"}}


def test_ingress_peers_are_allowed_on_the_sandboxes_port(make_settings: MakeSettings) -> None:
    settings = make_settings(
        SANDBOX_INGRESS_FROM="10.0.0.0/8, fd00::/8 192.0.2.7,namespace:kubernetes.io/metadata.name=backend,pod:app=b,"
        "namespace:team=a/pod:app.kubernetes.io/name=x",
        SANDBOX_CONTAINER_PORT=9000,
        K8S_NAMESPACE="mine",
    )
    policy = built(settings)
    assert policy["metadata"]["namespace"] == "mine"
    assert policy["spec"]["ingress"] == [
        {
            "from": [
                {"ipBlock": {"cidr": "10.0.0.0/8"}},
                {"ipBlock": {"cidr": "fd00::/8"}},
                {"ipBlock": {"cidr": "192.0.2.7/32"}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "backend"}}},
                {"podSelector": {"matchLabels": {"app": "b"}}},
                {
                    "namespaceSelector": {"matchLabels": {"team": "a"}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "x"}},
                },
            ],
            "ports": [{"protocol": "TCP", "port": 9000}],
        }
    ]


@pytest.mark.parametrize(
    "entry",
    [
        "everybody", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "namespace:", "namespace:a", "pod:=b", "pod:a",
        "pod:a=b/namespace:c=d", "namespace:a=b/", "namespace:a=b/pod:", "pod:-a=b", "pod:a=b/c", f"pod:a={'x' * 64}",
        "Pod:a=b", ",10.0.0.0/8",
    ],
)  # fmt: skip
def test_an_invalid_ingress_peer_stops_the_start(make_settings: MakeSettings, entry: str) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(SANDBOX_INGRESS_FROM=entry)
    first, second = str(caught.value).splitlines()
    assert first == "The environment can't be used:"
    assert second.startswith("  SANDBOX_INGRESS_FROM holds ")
    assert "It may hold CIDRs" in second


@pytest.mark.parametrize("text", ["", "kind: Pod\n", "kind: NetworkPolicy\n---\nkind: NetworkPolicy\n"])
def test_a_file_without_exactly_one_policy_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(StartupError, match=r"x\.yaml must hold exactly one NetworkPolicy"):
        load_policy(tmp_path / "x.yaml")
