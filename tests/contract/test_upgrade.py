"""Sandboxes of earlier versions: this version finds, keeps, renews, reaps and deletes them.

`tests/recorded/upgrade` has the objects that each version applied, by template and environment (see its README).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster import Cluster
from tests.audit import TEMPLATES
from tests.contract.lives import reaper_of
from tests.contract.service import URL, Provisioner, StartProvisioner, until
from tests.kubectl import Kubectl
from tests.record import RECORDED

NS = "deer-flow"
ENVIRONMENTS = ("node-port", "cluster-ip", "host-paths", "claims")

pytestmark = [pytest.mark.usefixtures("without_reaper"), pytest.mark.role(TEMPLATES), pytest.mark.slow]


def recorded(environment: str) -> list[dict[str, Any]]:
    """Return the records of this environment, one for each template."""
    records = [json.loads(path.read_text()) for path in sorted((RECORDED / "upgrade").glob(f"*-{environment}.json"))]
    assert [record["template"] for record in records] == ["default", "isolated", "persistent"]
    return records


@pytest.fixture(params=ENVIRONMENTS)
async def upgraded(
    request: pytest.FixtureRequest, kubectl: Kubectl, start_provisioner: StartProvisioner
) -> tuple[Provisioner, list[dict[str, Any]]]:
    """Return this version's service on a cluster with an earlier version's sandboxes, and the record of each."""
    records = recorded(request.param)
    for kind in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
    ):
        assert (await kubectl("create", "-f", "-", stdin=kind)).rc == 0
    await kubectl("wait", "--for=create", "serviceaccount/default", "-n", NS, "--timeout=10s")
    sandboxes = [sandbox for record in records for sandbox in record["sandboxes"]]
    extras = [obj for sandbox in sandboxes for obj in sandbox["created"]]
    if extras:
        made = await kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": extras})
        assert made.rc == 0, made.stderr
    applied = await kubectl.apply(*(obj for sandbox in sandboxes for obj in sandbox["applied"]))
    assert applied.rc == 0, applied.stderr
    return await start_provisioner(**records[0]["environment"]), sandboxes


def uid_of(cluster: Cluster, sandbox_id: str) -> str:
    """Return the uid of a sandbox's Pod, which must exist."""
    pod = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
    assert pod is not None
    return str(pod["metadata"]["uid"])


def ids(sandboxes: list[dict[str, Any]], *, expired: bool = False) -> list[str]:
    """Return the ids of the sandboxes that have expired by now, or of the others."""
    found = [sandbox["request"]["sandbox_id"] for sandbox in sandboxes]
    return sorted(one for one in found if one.endswith("-expired") is expired)


async def test_sandboxes_of_an_earlier_version_are_found_kept_and_renewed(
    upgraded: tuple[Provisioner, list[dict[str, Any]]], cluster: Cluster
) -> None:
    provisioner, sandboxes = upgraded
    listed = (await (await provisioner.get(URL)).json())["sandboxes"]
    assert set(ids(sandboxes)) <= {one["sandbox_id"] for one in listed}
    for sandbox in sandboxes:
        body = sandbox["request"]
        if body["sandbox_id"] not in ids(sandboxes):
            continue
        before = uid_of(cluster, body["sandbox_id"])
        found = await (await provisioner.get(f"{URL}/{body['sandbox_id']}")).json()
        assert found["thread_id"] == body["thread_id"]
        assert found["template"] == body.get("template", "default")
        again = await provisioner.post(URL, json=body)
        assert again.status == 200, await again.text()
        assert (await again.json())["sandbox_url"] == found["sandbox_url"]
        other = await provisioner.post(URL, json={**body, "thread_id": "another"})
        assert other.status == 409
        renewed = await provisioner.post(f"{URL}/{body['sandbox_id']}/renew", json={"ttl_seconds": 100})
        assert renewed.status == 200
        assert (await renewed.json())["expires_at"] not in (None, found["expires_at"])
        assert (await provisioner.post(f"{URL}/{body['sandbox_id']}/touch")).status == 200
        assert uid_of(cluster, body["sandbox_id"]) == before


async def created_again(provisioner: Provisioner, cluster: Cluster, body: dict[str, Any], kind: str) -> None:
    """Repeat the create until the deleted object exists again: the live view learns of the delete a moment later."""
    name = f"sandbox-{body['sandbox_id']}" + ("-svc" if kind == "Service" else "")

    async def is_there() -> bool:
        answer = await provisioner.post(URL, json=body)
        assert answer.status == 200, await answer.text()
        return cluster.get(kind, NS, name) is not None

    await until(is_there)


async def test_a_missing_service_of_an_earlier_version_is_restored_and_the_pod_kept(
    upgraded: tuple[Provisioner, list[dict[str, Any]]], cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner, sandboxes = upgraded
    for sandbox in sandboxes:
        body = sandbox["request"]
        sandbox_id = body["sandbox_id"]
        if sandbox_id not in ids(sandboxes):
            continue
        before = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
        assert before is not None
        assert (await kubectl("delete", "service", f"sandbox-{sandbox_id}-svc", "-n", NS)).rc == 0
        await created_again(provisioner, cluster, body, "Service")
        after = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
        assert after is not None
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        # This version's own profile may differ.
        assert after["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


async def test_a_missing_pod_of_an_earlier_version_is_replaced_by_one_of_this_version(
    upgraded: tuple[Provisioner, list[dict[str, Any]]], cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner, sandboxes = upgraded
    for sandbox in sandboxes:
        body = sandbox["request"]
        sandbox_id = body["sandbox_id"]
        if sandbox_id not in ids(sandboxes):
            continue
        assert (await kubectl("delete", "pod", f"sandbox-{sandbox_id}", "-n", NS)).rc == 0
        await created_again(provisioner, cluster, body, "Pod")
        pod = cluster.get("Pod", NS, f"sandbox-{sandbox_id}")
        assert pod is not None
        is_isolated = body.get("template") == "isolated"
        assert ("seccompProfile" in pod["spec"].get("securityContext", {})) is is_isolated


async def test_sandboxes_of_an_earlier_version_are_reaped_and_deleted(
    upgraded: tuple[Provisioner, list[dict[str, Any]]], cluster: Cluster
) -> None:
    provisioner, sandboxes = upgraded
    reaped = await reaper_of(provisioner).round(dry_run=False)
    assert len(reaped) == len(ids(sandboxes, expired=True))
    for sandbox_id in ids(sandboxes):
        assert uid_of(cluster, sandbox_id)
        assert (await provisioner.delete(f"{URL}/{sandbox_id}")).status == 200
        assert (await provisioner.get(f"{URL}/{sandbox_id}")).status == 404

    async def nothing_but_claims() -> bool:
        return not cluster.objects("Pod", NS) and not cluster.objects("Service", NS)

    await until(nothing_but_claims)
