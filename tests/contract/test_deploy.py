"""manifests/deploy: the built objects, whether an API server accepts them, and whether the Role is exact."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.authorization import Right, rights_of
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.deadlines import DEADLINES
from sandboxes.grammar import peer_of
from sandboxes.settings import Settings
from tests.audit import PRODUCTION, TEMPLATES
from tests.contract.faults import refuse_next
from tests.contract.kubectls import new_kubectl, old_kubectl
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.deploy import OVERLAYS, built, objects, overlay_with
from tests.kubectl import Kubectl

NS = "deer-flow"
KINDS = {
    *("Namespace", "ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "PodDisruptionBudget"),
    "NetworkPolicy",
}
KNOWN = ("Namespace", "ServiceAccount", "Service", "NetworkPolicy")
COMPONENT = {"resources": ["../../base"], "components": ["../../components/templates"]}
ALWAYS_REFUSED = {Right("get", "", "namespaces")}
"""Requests that may be rejected: kubectl reads the namespace of an object that it did not find; the service, once."""

each_overlay = pytest.mark.parametrize("folder", OVERLAYS)


def pod_of(folder: str) -> dict[str, Any]:
    pod: dict[str, Any] = objects(new_kubectl(), folder)["Deployment"]["spec"]["template"]
    return pod


def container_of(folder: str) -> dict[str, Any]:
    (container,) = pod_of(folder)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def env_of(folder: str) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container_of(folder)["env"]}


@each_overlay
@pytest.mark.slow
def test_old_and_new_kubectl_build_the_same_manifests(folder: str) -> None:
    assert built(old_kubectl(), folder) == built(new_kubectl(), folder)


@each_overlay
def test_an_overlay_has_exactly_the_expected_namespaced_objects(folder: str) -> None:
    made = objects(new_kubectl(), folder)
    assert set(made) == (KINDS - {"NetworkPolicy"} if folder == "overlays/dev" else KINDS)
    for kind, obj in made.items():
        assert (obj["metadata"].get("namespace") == NS) is (kind != "Namespace")
    assert made["Namespace"]["metadata"]["name"] == NS == Settings.model_fields["k8s_namespace"].default
    subject = {"kind": "ServiceAccount", "name": made["ServiceAccount"]["metadata"]["name"], "namespace": NS}
    assert made["RoleBinding"]["subjects"] == [subject]
    assert made["RoleBinding"]["roleRef"]["name"] == made["Role"]["metadata"]["name"]
    assert pod_of(folder)["spec"]["serviceAccountName"] == subject["name"]


@each_overlay
async def test_the_api_server_accepts_the_kinds_that_devcluster_knows(kubectl: Kubectl, folder: str) -> None:
    known = [obj for kind, obj in objects(new_kubectl(), folder).items() if kind in KNOWN]
    result = await kubectl(
        "apply", "--validate=strict", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": known}
    )
    assert result.rc == 0, result.stderr
    # The Pod of the Deployment too, so that the server checks its field names.
    pod = {"apiVersion": "v1", "kind": "Pod", **pod_of(folder)}
    pod["metadata"] = {**pod["metadata"], "name": "provisioner", "namespace": NS}
    result = await kubectl("apply", "--server-side", "-f", "-", stdin=pod)
    assert result.rc == 0, result.stderr


@each_overlay
def test_the_pod_runs_unprivileged_without_host_access(folder: str) -> None:
    pod, container = pod_of(folder)["spec"], container_of(folder)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert [set(volume) for volume in pod["volumes"]] == [{"name", "emptyDir"}]
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    security = container["securityContext"]
    assert security["privileged"] is security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}


@each_overlay
def test_the_role_has_no_cluster_wide_wildcard_or_sensitive_right(folder: str) -> None:
    text = built(new_kubectl(), folder)
    assert "ClusterRole" not in text
    for right in rights_of(objects(new_kubectl(), folder)["Role"]["rules"]):
        assert "*" not in (right.verb, right.group, right.resource)
        assert right.resource not in ("secrets", "pods/exec", "serviceaccounts", "roles", "rolebindings", "namespaces")


@each_overlay
def test_the_api_key_comes_from_a_secret(folder: str) -> None:
    reference = env_of(folder)["PROVISIONER_API_KEY"]["secretKeyRef"]
    assert reference == {"name": "provisioner-api-key", "key": "api-key"}


@each_overlay
def test_the_grace_period_exceeds_pre_stop_and_shutdown(folder: str) -> None:
    command = container_of(folder)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    assert pod_of(folder)["spec"]["terminationGracePeriodSeconds"] > int(command[1]) + DEADLINES.shutdown


@each_overlay
def test_ports_probes_and_selectors_match_the_pod(folder: str) -> None:
    made, container = objects(new_kubectl(), folder), container_of(folder)
    labels = pod_of(folder)["metadata"]["labels"]
    assert container["ports"] == [{"name": "http", "containerPort": 8002, "protocol": "TCP"}]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    service = made["Service"]
    assert service["spec"]["ports"] == [{"name": "http", "port": 8002, "targetPort": "http", "protocol": "TCP"}]
    annotations = service["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8002",
        "prometheus.io/path": "/metrics",
    }
    spread = pod_of(folder)["spec"]["topologySpreadConstraints"]
    selectors = [
        service["spec"]["selector"],
        made["Deployment"]["spec"]["selector"]["matchLabels"],
        made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in spread),
    ]
    if "NetworkPolicy" in made:
        selectors.append(made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        assert selector == labels
    assert "app" not in labels  # the label of sandboxes
    assert {"requests", "limits"} == set(container["resources"])


@each_overlay
def test_every_variable_exists_and_has_a_valid_value(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in env_of(folder).items():
        assert name.lower() in Settings.model_fields
        stand_in = {"NODE_HOST": "192.0.2.7"}.get(name, "x") if isinstance(value, dict) else value
        monkeypatch.setenv(name, stand_in)
    Settings.load()


def test_each_overlay_has_its_own_replicas_and_settings() -> None:
    kubectl = new_kubectl()
    replicas = {folder: objects(kubectl, folder)["Deployment"]["spec"]["replicas"] for folder in OVERLAYS}
    assert replicas == {".": 2, "overlays/dev": 1, "overlays/production": 3}
    assert env_of(".")["SANDBOX_SERVICE_TYPE"] == env_of("overlays/production")["SANDBOX_SERVICE_TYPE"] == "ClusterIP"
    dev = env_of("overlays/dev")
    assert (dev["SANDBOX_SERVICE_TYPE"], dev["LOG_LEVEL"]) == ("NodePort", "DEBUG")
    assert objects(kubectl, "overlays/dev")["Service"]["spec"]["type"] == "NodePort"
    assert env_of("overlays/production")["SANDBOX_NETWORK_POLICY"] == "isolated"
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", container_of("overlays/production")["image"])


def test_the_network_policy_allows_only_clients_and_the_required_egress() -> None:
    policy = objects(new_kubectl(), ".")["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = policy["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": 8002}]
    label = {"matchLabels": {"sandbox-provisioner/client": "true"}}
    no_sandbox = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["deer-flow-sandbox"]}]}
    assert ingress["from"] == [{"namespaceSelector": label}, {"podSelector": {**label, **no_sandbox}}]
    dns, dns_on_the_node, api_server, sandboxes = policy["egress"]
    assert {one["port"] for one in (*dns["ports"], *dns_on_the_node["ports"])} == {53}
    assert dns_on_the_node["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert {one["port"] for one in api_server["ports"]} == {443, 6443, 8443, 16443, 26443}
    assert sandboxes == {"to": [{"podSelector": {"matchLabels": {"app": "deer-flow-sandbox"}}}]}


def test_in_production_the_provisioner_and_its_clients_can_reach_sandboxes() -> None:
    peers = [peer_of(one) for one in env_of("overlays/production")["SANDBOX_INGRESS_FROM"].split(",")]
    client = {"matchLabels": {"sandbox-provisioner/client": "true"}}
    # The clients that the provisioner's own NetworkPolicy allows.
    assert {"namespaceSelector": client} in peers
    assert {"podSelector": client} in peers
    (own,) = (peer["podSelector"] for peer in peers if "podSelector" in peer and peer["podSelector"] != client)
    assert isinstance(own, dict)
    assert set(own["matchLabels"].items()) <= set(pod_of("overlays/production")["metadata"]["labels"].items())


# The Role


async def make_namespace(kubectl: Kubectl) -> None:
    """Create the namespace, as `kubectl apply -k` does."""
    result = await kubectl("create", "namespace", NS)
    assert result.rc == 0, result.stderr


async def use_everything(provisioner: Provisioner, cluster: Cluster, *template_names: str) -> None:
    """Use every operation of the service, each with success."""
    for name in ("default", *template_names):
        await create(provisioner, f"x-{name}", template=name)
        await create(provisioner, f"x-{name}", template=name)
    one = f"{URL}/x-default"
    response = await provisioner.get(f"{one}?wait_seconds=20")
    assert (await response.json())["ready"] is True
    assert (await provisioner.post(f"{one}/renew", json={"ttl_seconds": 3600})).status == 200
    assert (await provisioner.post(f"{one}/touch")).status == 200
    diagnostics = await (await provisioner.get(f"{one}/diagnostics")).json()
    assert (diagnostics["events"]["error"], diagnostics["logs"]["error"]) == (None, None)
    assert (await (await provisioner.get(URL)).json())["count"] == 1 + len(template_names)
    assert (await provisioner.get(f"{URL}/none")).status == 404
    lifecycle = provisioner.client.app[SANDBOX_SERVICE]
    await lifecycle.cluster.list_live()
    await lifecycle.reaper.round(dry_run=False)
    for name in ("default", *template_names):
        assert (await provisioner.delete(f"{URL}/x-{name}")).status == 200
    await until(lambda: no_pod_is_left(cluster))
    # Rollback of failed creates.
    for name in template_names:
        refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded", times=4)
        response = await provisioner.post(URL, json={"sandbox_id": f"no-{name}", "template": name})
        assert response.status == 429, await response.text()
    await lifecycle.finish()


async def no_pod_is_left(cluster: Cluster) -> bool:
    return not cluster.objects("Pod", NS)


@pytest.mark.starts_in_full
async def test_the_default_role_is_exactly_what_the_service_uses(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, caplog: pytest.LogCaptureFixture
) -> None:
    await make_namespace(kubectl)
    role = objects(new_kubectl(), ".")["Role"]["rules"]
    cluster.authorization.restrict(NS, role)
    with caplog.at_level(logging.WARNING):
        provisioner = await start_provisioner()
    assert "The provisioner lacks the right to get namespaces in the cluster" in caplog.text
    await use_everything(provisioner, cluster, "persistent")
    assert cluster.authorization.used == rights_of(role)
    assert cluster.authorization.refused == ALWAYS_REFUSED


@pytest.mark.slow
@pytest.mark.role(PRODUCTION)
@pytest.mark.starts_in_full
async def test_the_production_role_is_exactly_what_the_service_uses(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await make_namespace(kubectl)
    role = objects(new_kubectl(), "overlays/production")["Role"]["rules"]
    cluster.authorization.restrict(NS, role)
    env = env_of("overlays/production")
    names = ("SANDBOX_NETWORK_POLICY", "SANDBOX_INGRESS_FROM")
    provisioner = await start_provisioner(**{name: env[name] for name in names})
    await use_everything(provisioner, cluster, "persistent")
    assert [obj["metadata"]["name"] for obj in cluster.objects("NetworkPolicy", NS)] == ["sandboxes-isolated"]
    assert cluster.authorization.used == rights_of(role)
    assert cluster.authorization.refused == ALWAYS_REFUSED


@pytest.mark.slow
@pytest.mark.role(TEMPLATES)
@pytest.mark.starts_in_full
async def test_the_role_with_the_templates_component_is_exactly_what_is_used(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    kubectl: Kubectl,
    templates: Path,
    tmp_path: Path,
) -> None:
    await make_namespace(kubectl)
    role = objects(new_kubectl(), overlay_with(tmp_path, COMPONENT))["Role"]["rules"]
    cluster.authorization.restrict(NS, role)
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(templates))
    await use_everything(provisioner, cluster, "persistent", "configured")
    assert cluster.authorization.used == rights_of(role)
    assert cluster.authorization.refused == ALWAYS_REFUSED


@pytest.mark.parametrize("kubectl_of", [new_kubectl, old_kubectl])
def test_an_overlay_moves_every_object_to_another_namespace(tmp_path: Path, kubectl_of: Callable[[], Path]) -> None:
    made = objects(kubectl_of(), overlay_with(tmp_path, {"namespace": "other", "resources": ["../../base"]}))
    assert made.pop("Namespace")["metadata"]["name"] == "other"
    assert {obj["metadata"]["namespace"] for obj in made.values()} == {"other"}
    assert [subject["namespace"] for subject in made["RoleBinding"]["subjects"]] == ["other"]


@pytest.mark.parametrize("kubectl_of", [new_kubectl, old_kubectl])
def test_the_clusters_component_adds_the_rights_for_markers_only(
    tmp_path: Path, kubectl_of: Callable[[], Path]
) -> None:
    component = {"resources": ["../../base"], "components": ["../../components/clusters"]}
    base = rights_of(objects(kubectl_of(), ".")["Role"]["rules"])
    added = rights_of(objects(kubectl_of(), overlay_with(tmp_path, component))["Role"]["rules"]) - base
    assert {(right.verb, right.resource) for right in added} == {
        (verb, "configmaps") for verb in ("create", "delete", "get", "update", "watch")
    }
