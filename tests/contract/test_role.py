"""The Roles of manifests/deploy, held against what the service asks for in all tests.

Each contract and end-to-end test fails by itself if its service asks for more (`within_the_role`, tests/audit.py). What
is left for here is the other half: that nothing is granted which is never asked for.
"""

from __future__ import annotations

import pytest

from devcluster.audit import Entry
from tests.audit import NOT_GRANTED, PRODUCTION, ROLES, Asked, beyond, role
from tests.contract.service import StartProvisioner, create
from tests.kubectl import Kubectl

AGENT = "kubectl/v1.37.1"


def entry(verb: str, resource: str, namespace: str = "deer-flow", *, user: str = "", path: str = "") -> Entry:
    return Entry(user, AGENT, verb, "", resource, namespace, path)


@pytest.mark.looks_back
@pytest.mark.parametrize("folder", ROLES)
def test_every_right_of_the_role_is_asked_for_by_some_test(audited: Asked, folder: str) -> None:
    assert role(folder) - audited.in_all == set()


@pytest.mark.looks_back
def test_everything_that_is_not_granted_is_asked_for_by_some_test(audited: Asked) -> None:
    assert NOT_GRANTED.keys() - audited.in_all == set()


@pytest.mark.parametrize("folder", ROLES)
def test_what_is_granted_is_no_exception_besides(folder: str) -> None:
    assert not role(folder) & NOT_GRANTED.keys()


@pytest.mark.parametrize(
    "too_much",
    [
        entry("deletecollection", "pods"),
        entry("get", "pods", ""),
        entry("get", "pods", "default"),
        entry("create", "pods/exec"),
        entry("update", "pods"),
        entry("get", "secrets"),
        entry("get", "", "", path="/metrics"),
        entry("get", "", "", path="/api/v1/nodes"),
        entry("post", "", "", path="/apis/example.com/v1"),
    ],
    ids=str,
)
def test_what_no_role_allows_fails(too_much: Entry) -> None:
    assert all(beyond([too_much], role(folder)) for folder in ROLES)


@pytest.mark.parametrize(
    "allowed",
    [entry("get", "pods"), entry("get", "", "", path="/apis"), entry("get", "", "", path="/openapi/v3")],
    ids=str,
)
def test_what_is_granted_and_what_is_open_to_all_passes(allowed: Entry) -> None:
    assert beyond([allowed], role(".")) == []


@pytest.mark.role(PRODUCTION)
async def test_a_service_that_asks_for_more_fails_its_test(start_provisioner: StartProvisioner, audited: Asked) -> None:
    with (
        pytest.raises(AssertionError, match=r"grant: create networkpolicies.networking.k8s.io in deer-flow, patch net"),
        audited.within("."),
    ):
        await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")


async def test_the_service_counts_and_the_tests_own_kubectl_does_not(
    start_provisioner: StartProvisioner, kubectl: Kubectl, audited: Asked
) -> None:
    with audited.within("."):
        assert (await kubectl("get", "nodes,secrets", "--all-namespaces")).stderr
        assert (await kubectl("delete", "pods", "--all", "-n", "default")).rc == 0
        await create(await start_provisioner())
