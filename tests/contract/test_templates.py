"""Templates: extra objects are created before the Pod, deleted after it, and never shared between owners."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.service.template_objects import Extras
from tests.audit import TEMPLATES
from tests.conftest import ROOT
from tests.contract.faults import refuse_next
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl

NS = "deer-flow"
with_templates_role = pytest.mark.role(TEMPLATES)
"""The Role of an operator whose templates have extra objects."""


def extras_of(provisioner: Provisioner) -> Extras:
    return provisioner.client.app[SANDBOX_SERVICE].extras


def names(cluster: Cluster, kind: str) -> list[str]:
    return [
        obj["metadata"]["name"] for obj in cluster.objects(kind, NS) if obj["metadata"]["name"] != "kube-root-ca.crt"
    ]


async def is_gone(cluster: Cluster, kind: str, name: str) -> bool:
    return cluster.get(kind, NS, name) is None


def uid(cluster: Cluster, kind: str, name: str) -> str:
    found = cluster.get(kind, NS, name)
    assert found is not None
    return str(found["metadata"]["uid"])


async def post(provisioner: Provisioner, **fields: Any) -> int:
    response = await provisioner.post(URL, json={"sandbox_id": "a", **fields})
    return response.status


async def test_a_persistent_sandboxs_claim_is_kept_for_its_owner(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    answer = await create(provisioner, thread_id="t", template="persistent")
    assert answer["template"] == "persistent"
    pod = cluster.get("Pod", NS, "sandbox-a")
    assert pod is not None
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["user-data"]["persistentVolumeClaim"]["claimName"] == "sandbox-a-data"
    claim = cluster.get("PersistentVolumeClaim", NS, "sandbox-a-data")
    assert claim is not None
    assert claim["metadata"]["labels"]["sandbox-id"] == "a"
    assert claim["metadata"]["annotations"]["provisioner/thread-id"] == "t"
    before = uid(cluster, "PersistentVolumeClaim", "sandbox-a-data")

    await provisioner.delete(f"{URL}/a")
    await until(lambda: is_gone(cluster, "Pod", "sandbox-a"))
    await extras_of(provisioner).remove_leftovers(0)
    assert await post(provisioner, thread_id="other", template="persistent") == 409
    assert cluster.get("Pod", NS, "sandbox-a") is None

    await create(provisioner, thread_id="t", template="persistent")
    assert uid(cluster, "PersistentVolumeClaim", "sandbox-a-data") == before


async def test_a_sidecar_mounts_only_its_threads_part_of_the_user_data_claim(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / "templates" / "with-sidecar"
    folder.mkdir(parents=True)
    pod = yaml.safe_load((ROOT / "manifests" / "sandbox" / "pod.yaml").read_text())
    mount = {"name": "user-data", "mountPath": "/watched"}
    pod["spec"]["containers"].append({"name": "sidecar", "image": "sidecar:1", "volumeMounts": [mount]})
    pod["spec"]["initContainers"] = [{"name": "init", "image": "init:1", "volumeMounts": [{**mount, "subPath": "log"}]}]
    (folder / "pod.yaml").write_text(yaml.safe_dump(pod))
    (folder / "service.yaml").write_text((ROOT / "manifests" / "sandbox" / "service.yaml").read_text())
    provisioner = await start_provisioner(
        SANDBOX_TEMPLATES_DIR=str(folder.parent),
        USERDATA_PVC_NAME="home",
        SKILLS_PVC_NAME="home",
        SKILLS_PVC_SUBPATH_TEMPLATE="skills/{user_id}",
    )
    await create(provisioner, thread_id="t", user_id="u", template="with-sidecar")
    stored = cluster.get("Pod", NS, "sandbox-a")
    assert stored is not None
    spec = stored["spec"]
    mounts = [one for part in ("containers", "initContainers") for each in spec[part] for one in each["volumeMounts"]]
    own = "deer-flow/users/u/threads/t/user-data"
    seen = {one["mountPath"]: (one["subPath"], one.get("readOnly", False)) for one in mounts if "subPath" in one}
    assert seen == {
        "/mnt/user-data": (own, False),
        "/mnt/skills": ("skills/u", True),
        "/watched": (f"{own}/log", False),  # of the init container, whose mount comes last
    }
    assert [one["subPath"] for one in mounts if one["mountPath"] == "/watched"] == [own, f"{own}/log"]
    claims = [one["persistentVolumeClaim"] for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [{"claimName": "home"}] * 2


@pytest.mark.slow
async def test_a_manually_created_claim_is_not_used(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    folder = ROOT / "manifests" / "templates" / "persistent" / "claim.yaml"
    text = folder.read_text().replace("sandbox-example-data", "sandbox-a-data")
    assert (await kubectl("create", "-n", NS, "-f", "-", stdin=text)).rc == 0
    assert await post(provisioner, template="persistent") == 409
    assert names(cluster, "PersistentVolumeClaim") == ["sandbox-a-data"]
    assert names(cluster, "Pod") == []


@with_templates_role
async def test_a_templates_extra_objects_are_deleted_after_the_pod(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await create(provisioner, template="configured")
    config, policy = (
        cluster.get("ConfigMap", NS, "sandbox-a-config"),
        cluster.get("NetworkPolicy", NS, "sandbox-a-policy"),
    )
    assert config is not None
    assert policy is not None
    assert policy["spec"]["podSelector"] == {"matchLabels": {"sandbox-id": "a"}}
    pod = cluster.get("Pod", NS, "sandbox-a")
    assert pod is not None
    assert {"name": "config", "configMap": {"name": "sandbox-a-config", "defaultMode": 0o644}} in pod["spec"]["volumes"]

    await until(lambda: is_running(cluster))
    cluster.stopping_takes(5)
    await provisioner.delete(f"{URL}/a")
    policy_outlived_pod = False
    while cluster.get("Pod", NS, "sandbox-a") is not None:
        assert cluster.get("NetworkPolicy", NS, "sandbox-a-policy") is not None
        policy_outlived_pod = True
        await asyncio.sleep(0.01)
    assert policy_outlived_pod
    await until(lambda: is_gone(cluster, "NetworkPolicy", "sandbox-a-policy"))
    await until(lambda: is_gone(cluster, "ConfigMap", "sandbox-a-config"))


async def is_running(cluster: Cluster) -> bool:
    pod = cluster.get("Pod", NS, "sandbox-a")
    return pod is not None and pod["status"]["phase"] == "Running"


@pytest.mark.slow
@with_templates_role
async def test_extra_objects_are_kept_when_the_same_owner_recreates_the_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await create(provisioner, template="configured")
    before = uid(cluster, "NetworkPolicy", "sandbox-a-policy")
    await provisioner.delete(f"{URL}/a")
    await create(provisioner, template="configured")
    extras = extras_of(provisioner)
    await extras.finish()
    assert await extras.remove_leftovers(0) == []
    assert uid(cluster, "NetworkPolicy", "sandbox-a-policy") == before


@with_templates_role
async def test_extra_objects_are_replaced_when_another_owner_recreates_the_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await create(provisioner, thread_id="t1", template="configured")
    before = uid(cluster, "NetworkPolicy", "sandbox-a-policy")
    await provisioner.delete(f"{URL}/a")
    await create(provisioner, thread_id="t2", template="configured")
    await extras_of(provisioner).finish()
    assert uid(cluster, "NetworkPolicy", "sandbox-a-policy") != before


@with_templates_role
async def test_concurrent_creates_by_two_owners_leave_one_set_of_extra_objects(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    services = [await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates)) for _ in range(2)]
    statuses = await asyncio.gather(
        *(post(one, thread_id=f"t{n}", template="configured") for n, one in enumerate(services))
    )
    assert sorted(statuses) == [200, 409]
    winner = f"t{statuses.index(200)}"
    owners = {
        obj["metadata"]["annotations"]["provisioner/thread-id"]
        for kind in ("Pod", "ConfigMap", "NetworkPolicy")
        for obj in cluster.objects(kind, NS)
        if "sandbox-id" in obj["metadata"].get("labels", {})
    }
    assert owners == {winner}
    assert len(names(cluster, "ConfigMap")) == len(names(cluster, "NetworkPolicy")) == 1


@pytest.mark.slow
@with_templates_role
async def test_concurrent_creates_in_two_processes_make_one_set_of_extra_objects(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    services = [await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates)) for _ in range(2)]
    answers = await asyncio.gather(*(create(one, template="configured") for one in services))
    assert answers[0]["sandbox_url"] == answers[1]["sandbox_url"]
    assert names(cluster, "ConfigMap") == ["sandbox-a-config"]
    assert names(cluster, "NetworkPolicy") == ["sandbox-a-policy"]


@pytest.mark.parametrize("resource", ["pods", pytest.param("services", marks=pytest.mark.slow)])
@pytest.mark.parametrize("template", ["configured", pytest.param("persistent", marks=pytest.mark.slow)])
@with_templates_role
async def test_a_rejected_create_leaves_none_of_its_templates_objects(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path, template: str, resource: str
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    cluster.stopping_takes(3)  # a created Pod terminates for a while
    refuse_next(cluster, "PATCH", resource, "apply-quota-exceeded", times=4)
    assert await post(provisioner, template=template) == 429
    await until(lambda: is_empty(cluster))


async def is_empty(cluster: Cluster) -> bool:
    kinds = ("Pod", "Service", "ConfigMap", "NetworkPolicy", "PersistentVolumeClaim")
    return not any(names(cluster, kind) for kind in kinds)


@pytest.mark.slow
async def test_a_rejected_create_keeps_an_existing_claim(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, template="persistent")
    await provisioner.delete(f"{URL}/a")
    await until(lambda: is_gone(cluster, "Pod", "sandbox-a"))
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded", times=4)
    assert await post(provisioner, template="persistent") == 429
    assert names(cluster, "PersistentVolumeClaim") == ["sandbox-a-data"]


@pytest.mark.slow
@with_templates_role
async def test_old_extra_objects_without_a_pod_are_removed(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, templates: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await create(provisioner, "a", template="configured")
    await create(provisioner, "b", template="configured")
    await create(provisioner, "c", template="persistent")
    for sandbox_id in ("a", "c"):
        assert (await kubectl("delete", "pod", f"sandbox-{sandbox_id}", "-n", NS)).rc == 0
    # A process without these templates: their folder was removed.
    other = extras_of(await start_provisioner(SANDBOX_TEMPLATES_DIR=""))
    assert await other.remove_leftovers(3600) == []
    expected = ["ConfigMap sandbox-a-config", "NetworkPolicy sandbox-a-policy"]
    assert sorted(await other.remove_leftovers(0, dry_run=True)) == expected
    assert len(names(cluster, "ConfigMap")) == 2
    assert sorted(await other.remove_leftovers(0)) == expected
    assert names(cluster, "ConfigMap") == ["sandbox-b-config"]
    assert names(cluster, "NetworkPolicy") == ["sandbox-b-policy"]
    assert names(cluster, "PersistentVolumeClaim") == ["sandbox-c-data"]


async def test_an_isolated_sandbox_needs_its_runtime_class_and_has_no_host_path(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(
        THREADS_HOST_PATH="/threads", SKILLS_HOST_PATH="/skills", SANDBOX_SECCOMP="Unconfined"
    )
    response = await provisioner.post(URL, json={"sandbox_id": "a", "template": "isolated"})
    message = "The cluster has no RuntimeClass gvisor, which the sandbox's template asks for"
    assert (response.status, await response.json()) == (502, {"detail": message})
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runsc"}
    made = await kubectl("create", "-f", "-", stdin={**runtime_class, "metadata": {"name": "gvisor"}})
    assert made.rc == 0, made.stderr
    await create(provisioner, template="isolated")
    pod = cluster.get("Pod", NS, "sandbox-a")
    assert pod is not None
    assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


async def test_a_hardened_sandbox_drops_all_capabilities_and_has_a_seccomp_profile(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    assert (await create(provisioner, "a", template="hardened"))["template"] == "hardened"
    await create(provisioner, "b")
    hardened, default = (cluster.get("Pod", NS, name) for name in ("sandbox-a", "sandbox-b"))
    assert hardened is not None
    assert default is not None
    assert hardened["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = hardened["spec"]["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "seccompProfile" not in default["spec"].get("securityContext", {})


SHIPPED = ("sandbox", "templates/persistent", "templates/isolated", "templates/hardened", "network-policy")


@pytest.mark.parametrize("folder", SHIPPED)
async def test_a_shipped_folder_can_be_applied_manually(cluster: Cluster, kubectl: Kubectl, folder: str) -> None:
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runsc"}
    await kubectl("create", "-f", "-", stdin={**runtime_class, "metadata": {"name": "gvisor"}})
    result = await kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / folder))
    assert result.rc == 0, result.stderr
    if folder != "network-policy":
        await until(lambda: is_ready_by_hand(cluster))
    if folder.endswith("persistent"):
        await until(lambda: is_bound_by_hand(cluster))


async def is_bound_by_hand(cluster: Cluster) -> bool:
    claim = cluster.get("PersistentVolumeClaim", "default", "sandbox-example-data")
    return claim is not None and claim["status"]["phase"] == "Bound"


async def is_ready_by_hand(cluster: Cluster) -> bool:
    pod = cluster.get("Pod", "default", "sandbox-example")
    return pod is not None and pod["status"]["phase"] == "Running"


@pytest.mark.slow
@with_templates_role
async def test_a_template_may_have_many_extra_objects(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    many = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: sandbox-example-c{n}}}\n" for n in range(4)
    )
    (templates / "configured" / "many.yaml").write_text(many)
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await create(provisioner, template="configured")
    assert sorted(names(cluster, "ConfigMap")) == [
        "sandbox-a-c0",
        "sandbox-a-c1",
        "sandbox-a-c2",
        "sandbox-a-c3",
        "sandbox-a-config",
    ]
    await provisioner.delete(f"{URL}/a")
    await until(lambda: not names(cluster, "ConfigMap") and not names(cluster, "NetworkPolicy"))


@pytest.mark.slow
@with_templates_role
async def test_a_failed_deletion_of_a_leftover_does_not_stop_the_others(
    start_provisioner: StartProvisioner, cluster: Cluster, templates: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    for sandbox_id in ("a", "b", "c"):
        await create(provisioner, sandbox_id, template="configured")
    extras = extras_of(provisioner)
    for sandbox_id in ("a", "b", "c"):
        await provisioner.client.app[SANDBOX_SERVICE].cluster.delete(sandbox_id)
    await until(lambda: not cluster.objects("Pod", NS))
    refuse_next(cluster, "delete", "configmaps", "apply-forbidden")
    await until(lambda: len(list(provisioner.view.objects())) == 0)
    await extras.remove_leftovers(0)
    assert names(cluster, "ConfigMap") == ["sandbox-a-config"]
    await extras.remove_leftovers(0)
    assert names(cluster, "ConfigMap") == []
