"""Restricted rights in devcluster: rejections as recorded, and the results of `auth can-i`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, pod, service
from tests.record import case

GET_LIST_PODS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]


def without_names(text: str) -> str:
    """Replace the names of users, namespaces and objects, which differ from the record's."""
    text = re.sub(r'User "[^"]*"', "User", text)
    text = re.sub(r'in the namespace "[^"]*"', "in the namespace", text)
    return re.sub(r'"sandbox-f(-svc)?"|"x(-svc)?"', "NAME", text)


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    """Return a kubectl of the restricted user."""
    return Kubectl(cluster.kubeconfig, tmp_path / "home", tester=False)


@pytest.fixture
def restricted(cluster: Cluster) -> Cluster:
    cluster.authorization.restrict("default", GET_LIST_PODS)
    return cluster


@pytest.mark.usefixtures("restricted")
@pytest.mark.parametrize(
    ("name", "resources"), [("get-forbidden", "services"), ("get-half-forbidden", "pods,services")]
)
async def test_a_list_without_the_right_is_rejected_as_recorded(kubectl: Kubectl, name: str, resources: str) -> None:
    result = await kubectl("get", "-n", "default", resources, "-o", "json")
    assert (result.rc, without_names(result.stderr)) == (1, without_names(case(name).stderr))


@pytest.mark.usefixtures("restricted")
async def test_an_apply_without_the_right_is_rejected_as_recorded(kubectl: Kubectl) -> None:
    result = await kubectl.apply(pod("x"), service("x"))
    assert (result.rc, without_names(result.stderr)) == (1, without_names(case("apply-forbidden").stderr))


async def test_an_apply_that_creates_an_object_needs_the_right_to_create(cluster: Cluster, kubectl: Kubectl) -> None:
    rules: list[dict[str, Any]] = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]
    cluster.authorization.restrict("default", rules)
    result = await kubectl.apply(pod("x"))
    assert 'cannot create resource "pods"' in result.stderr
    assert cluster.objects("Pod", "default") == []
    cluster.authorization.restrict("default", [{**rules[0], "verbs": ["patch", "create"]}])
    assert (await kubectl.apply(pod("x"))).rc == 0


@pytest.mark.usefixtures("restricted")
async def test_other_namespaces_and_the_cluster_scope_are_forbidden(kubectl: Kubectl) -> None:
    elsewhere = await kubectl("get", "pods", "-n", "kube-system")
    assert 'pods is forbidden: User "' in elsewhere.stderr
    everywhere = await kubectl("get", "pods", "--all-namespaces")
    assert 'cannot list resource "pods" in API group "" at the cluster scope' in everywhere.stderr


@pytest.mark.usefixtures("restricted")
async def test_can_i_reports_the_granted_rights(kubectl: Kubectl) -> None:
    recorded = case("can-i-no")
    no = await kubectl("auth", "can-i", "patch", "pods", "-n", "default")
    assert (no.rc, no.stdout, no.stderr) == (recorded.returncode, recorded.stdout, recorded.stderr)
    assert (await kubectl("auth", "can-i", "list", "pods", "-n", "default")).stdout == "yes\n"
    listed = await kubectl("auth", "can-i", "--list", "-n", "default")
    (line,) = (line for line in listed.stdout.splitlines() if line.startswith("pods"))
    assert line.split() == next(line for line in case("can-i-list").stdout.splitlines() if "pods" in line).split()


async def test_rights_granted_by_a_webhook_are_in_no_list_of_rules(cluster: Cluster, kubectl: Kubectl) -> None:
    by_webhook = [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]
    cluster.authorization.restrict("default", GET_LIST_PODS, by_webhook=by_webhook)
    assert (await kubectl("auth", "can-i", "list", "services", "-n", "default")).stdout == "yes\n"
    assert (await kubectl("get", "services", "-n", "default")).rc == 0
    listed = await kubectl("auth", "can-i", "--list", "-n", "default")
    assert [line for line in listed.stdout.splitlines() if line.startswith("services")] == []
    assert "the list may be incomplete: webhook authorizer does not support user rule resolution" in listed.stderr


async def test_a_restricted_user_can_not_impersonate_another(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl("get", "pods", "--as=somebody")).rc == 0
    cluster.authorization.restrict("default", GET_LIST_PODS)
    result = await kubectl("get", "pods", "-n", "default", "--as=somebody")
    assert result.rc == 1
    assert 'users "somebody" is forbidden: User "' in result.stderr
    assert 'cannot impersonate resource "users" in API group "" at the cluster scope' in result.stderr
