"""(sandbox, template) → the objects in the cluster, and their revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sandboxes.settings import DEFAULT_IMAGE, Settings
from sandboxes.spec.manifests import build, user_data_source
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template, load_template
from tests.conftest import ROOT
from tests.record import recorded_pods
from tests.unit.manifests import AT, SANDBOX, container, rendered, revision_of, volumes

MakeSettings = Callable[..., Settings]
LABELS = {
    "app": "deer-flow-sandbox",
    "sandbox-id": "abc",
    "app.kubernetes.io/name": "deer-flow",
    "app.kubernetes.io/component": "sandbox",
    "app.kubernetes.io/managed-by": "sandbox-provisioner",
}
ANNOTATIONS = {
    "provisioner/thread-id": "T-1",
    "provisioner/user-id": "u_1",
    "provisioner/template": "default",
    "provisioner/applied-at": AT,
}


def test_a_pod_has_exactly_these_fields(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(SKILLS_HOST_PATH="/skills", THREADS_HOST_PATH="/threads")
    pod, _ = rendered(settings, template)
    probe = {"httpGet": {"path": "/v1/sandbox", "port": 8080}, "timeoutSeconds": 3}
    assert pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sandbox-abc", "namespace": "deer-flow", "labels": LABELS, "annotations": ANNOTATIONS},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 5,
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": "deer-flow-sandbox"}},
                }
            ],
            "containers": [
                {
                    "name": "sandbox",
                    "image": DEFAULT_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"privileged": False},
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "500Mi"},
                        "limits": {"cpu": "1000m", "memory": "1Gi", "ephemeral-storage": "500Mi"},
                    },
                    "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 120},
                    "readinessProbe": {**probe, "periodSeconds": 5},
                    "livenessProbe": {**probe, "periodSeconds": 10},
                    "volumeMounts": [
                        {"name": "user-data", "mountPath": "/mnt/user-data"},
                        {"name": "skills", "mountPath": "/mnt/skills", "readOnly": True},
                    ],
                    "env": [{"name": "SANDBOX_REVISION", "value": revision_of(pod)}],
                }
            ],
            "volumes": [
                {"name": "user-data", "hostPath": {"path": "/threads/T-1/user-data", "type": "DirectoryOrCreate"}},
                {"name": "skills", "hostPath": {"path": "/skills", "type": "Directory"}},
            ],
        },
    }


def test_a_service_has_exactly_these_fields(make_settings: MakeSettings, template: Template) -> None:
    _, service = rendered(make_settings(), template)
    assert service == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "sandbox-abc-svc",
            "namespace": "deer-flow",
            "labels": LABELS,
            "annotations": {"provisioner/applied-at": AT},
        },
        "spec": {
            "type": "NodePort",
            "publishNotReadyAddresses": True,
            "selector": {"sandbox-id": "abc"},
            "ports": [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def test_the_container_port_is_used_by_probes_and_service(make_settings: MakeSettings, template: Template) -> None:
    pod, service = rendered(make_settings(SANDBOX_CONTAINER_PORT="9000"), template)
    assert container(pod)["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(pod)[probe]["httpGet"]["port"] == 9000
    assert service["spec"]["ports"][0]["targetPort"] == 9000
    assert service["spec"]["ports"][0]["port"] == 9000


def test_settings_are_applied_to_pod_and_service(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(
        K8S_NAMESPACE="other",
        SANDBOX_IMAGE="registry.local/sandbox:1",
        SANDBOX_SECCOMP="Unconfined",
        SANDBOX_STARTUP_FAILURE_THRESHOLD="600",
        SANDBOX_SERVICE_TYPE="ClusterIP",
    )
    pod, service = rendered(settings, template)
    assert pod["metadata"]["namespace"] == service["metadata"]["namespace"] == "other"
    assert container(pod)["image"] == "registry.local/sandbox:1"
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert container(pod)["startupProbe"]["failureThreshold"] == 600
    assert service["spec"]["type"] == "ClusterIP"


def test_additional_fields_of_a_template_are_kept(make_settings: MakeSettings, tmp_path: Path) -> None:
    folder = ROOT / "manifests" / "sandbox"
    pod = yaml.safe_load((folder / "pod.yaml").read_text())
    service = yaml.safe_load((folder / "service.yaml").read_text())
    pod["metadata"]["labels"]["team"] = "a"
    pod["metadata"]["annotations"] = {"note": "b"}
    pod["spec"]["tolerations"] = [{"key": "sandboxes", "operator": "Exists"}]
    pod["spec"]["runtimeClassName"] = "gvisor"
    pod["spec"]["securityContext"] = {"fsGroup": 1000}
    pod["spec"]["containers"].insert(0, {"name": "sidecar", "image": "sidecar:1"})
    pod["spec"]["containers"][1]["env"] = [{"name": "MINE", "value": "1"}]
    pod["spec"]["containers"][1]["ports"].append({"name": "vnc", "containerPort": 5900})
    pod["spec"]["volumes"].append({"name": "cache", "emptyDir": {}})
    service["metadata"]["annotations"] = {"note": "c"}
    service["spec"]["ports"].append({"name": "vnc", "port": 5900})
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(service))

    built_pod, built_service = rendered(make_settings(), load_template(tmp_path))

    assert built_pod["metadata"]["labels"] == {**LABELS, "team": "a"}
    assert built_pod["metadata"]["annotations"]["note"] == "b"
    assert built_pod["spec"]["tolerations"] == [{"key": "sandboxes", "operator": "Exists"}]
    assert built_pod["spec"]["runtimeClassName"] == "gvisor"
    assert built_pod["spec"]["securityContext"]["fsGroup"] == 1000
    assert [one["name"] for one in built_pod["spec"]["containers"]] == ["sidecar", "sandbox"]
    assert [one["name"] for one in built_pod["spec"]["containers"][1]["env"]] == ["MINE", "SANDBOX_REVISION"]
    assert [one["name"] for one in built_pod["spec"]["containers"][1]["ports"]] == ["http", "vnc"]
    assert "cache" in volumes(built_pod)
    assert built_service["metadata"]["annotations"]["note"] == "c"
    assert [one["name"] for one in built_service["spec"]["ports"]] == ["http", "vnc"]


def test_building_does_not_modify_the_template(make_settings: MakeSettings, template: Template) -> None:
    rendered(make_settings(SKILLS_HOST_PATH="/skills"), template)
    assert template == load_template(ROOT / "manifests" / "sandbox")


@pytest.mark.parametrize(
    "variables",
    [
        {"SANDBOX_IMAGE": "other:1"},
        {"THREADS_HOST_PATH": "/other"},
        {"SANDBOX_SECCOMP": "Unconfined"},
        {"SANDBOX_SECCOMP": "RuntimeDefault"},
    ],
)
def test_another_specification_changes_the_revision(
    make_settings: MakeSettings, template: Template, variables: dict[str, str]
) -> None:
    before, _ = rendered(make_settings(), template)
    after, _ = rendered(make_settings(**variables), template)
    assert revision_of(before) != revision_of(after)


@pytest.mark.parametrize("other", [Sandbox("abc", "T-2", "u_1"), Sandbox("abc", "T-1", "u_2")])
def test_another_owner_changes_the_revision(make_settings: MakeSettings, template: Template, other: Sandbox) -> None:
    first, _ = rendered(make_settings(), template)
    second, _ = rendered(make_settings(), template, other)
    assert revision_of(first) != revision_of(second)


def test_the_revision_does_not_depend_on_the_time(make_settings: MakeSettings, template: Template) -> None:
    first, _ = build(SANDBOX, template, make_settings(), applied_at="2026-01-01T00:00:00Z")
    second, _ = build(SANDBOX, template, make_settings(), applied_at="2027-01-01T00:00:00Z")
    assert revision_of(first) == revision_of(second)


def test_a_foreign_pod_has_no_user_data() -> None:
    assert user_data_source(recorded_pods()["pod-ready"]) == {}
