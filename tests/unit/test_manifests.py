"""(sandbox, template) → the objects in the cluster."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandboxes.models.requests import ExtraMount
from sandboxes.settings import DEFAULT_IMAGE, Settings
from sandboxes.spec.manifests import build, revision_of, user_data_source
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template, load_template
from tests.conftest import ROOT
from tests.record import recorded_pods

MakeSettings = Callable[..., Settings]
AT = "2026-01-01T00:00:00.000000Z"
SANDBOX = Sandbox("abc", "T-1", "u_1")

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


def rendered(settings: Settings, template: Template, sandbox: Sandbox = SANDBOX) -> tuple[Any, Any]:
    pod, service = build(sandbox, template, settings, applied_at=AT)
    return pod, service


def container(pod: Any) -> Any:
    return pod["spec"]["containers"][0]


def volumes(pod: Any) -> Any:
    return {volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in pod["spec"]["volumes"]}


def mounts(pod: Any) -> Any:
    return {mount.pop("mountPath"): mount for mount in container(pod)["volumeMounts"]}


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


def test_without_paths_user_data_are_an_empty_dir_and_skills_are_not_mounted(
    make_settings: MakeSettings, template: Template
) -> None:
    pod, _ = rendered(make_settings(), template)
    assert volumes(pod) == {"user-data": {"emptyDir": {}}}
    assert mounts(pod) == {"/mnt/user-data": {"name": "user-data"}}


def test_a_placeholder_gives_the_same_threads_folder_but_no_base_directory(
    make_settings: MakeSettings, template: Template
) -> None:
    implying = make_settings(THREADS_HOST_PATH="/data/threads")
    before, _ = rendered(implying, template)
    refusing = make_settings(THREADS_HOST_PATH="/data/threads/{thread_id}")
    after, _ = rendered(refusing, template)
    assert (implying.base_directory, refusing.base_directory) == ("/data", None)
    assert user_data_source(before) == user_data_source(after)


def test_claims_replace_host_paths(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(
        SKILLS_PVC_NAME="skills-claim",
        USERDATA_PVC_NAME="data-claim",
        SKILLS_HOST_PATH="/skills",
        THREADS_HOST_PATH="/threads",
    )
    pod, _ = rendered(settings, template)
    assert volumes(pod) == {
        "skills": {"persistentVolumeClaim": {"claimName": "skills-claim"}},
        "user-data": {"persistentVolumeClaim": {"claimName": "data-claim"}},
    }
    assert mounts(pod) == {
        "/mnt/user-data": {"name": "user-data", "subPath": "deer-flow/users/u_1/threads/T-1/user-data"},
        "/mnt/skills": {"name": "skills", "readOnly": True},
    }


def test_a_skills_claim_is_mounted_at_the_configured_sub_path(make_settings: MakeSettings, template: Template) -> None:
    path = "deer-flow/users/{user_id}/{thread_id}/skills/"
    settings = make_settings(SKILLS_PVC_NAME="claim", SKILLS_PVC_SUBPATH_TEMPLATE=path)
    pod, _ = rendered(settings, template)
    assert mounts(pod)["/mnt/skills"] == {
        "name": "skills",
        "readOnly": True,
        "subPath": "deer-flow/users/u_1/T-1/skills",
    }


SUB_PATH = "deer-flow/users/u_1/threads/T-1/user-data"


def with_mounts(template: Template, *mounts_: dict[str, Any]) -> Template:
    """Add these mounts to the sandbox, a sidecar, an init container and a native sidecar."""
    spec = template.pod["spec"]
    spec["containers"].append({"name": "sidecar", "image": "s:1", "volumeMounts": copy.deepcopy(list(mounts_))})
    spec["initContainers"] = [
        {"name": "init", "image": "i:1", "volumeMounts": copy.deepcopy(list(mounts_))},
        {"name": "native", "image": "n:1", "restartPolicy": "Always", "volumeMounts": copy.deepcopy(list(mounts_))},
    ]
    spec["containers"][0]["volumeMounts"] += copy.deepcopy(list(mounts_))
    return template


def all_mounts(pod: Any, volume: str) -> list[Any]:
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    return [mount for one in containers for mount in one.get("volumeMounts", []) if mount["name"] == volume]


@pytest.mark.parametrize(
    ("own", "narrowed"),
    [
        ({}, {"subPath": SUB_PATH}),
        ({"subPath": "cache"}, {"subPath": f"{SUB_PATH}/cache"}),
        ({"subPath": "a/b", "readOnly": True}, {"subPath": f"{SUB_PATH}/a/b", "readOnly": True}),
        ({"subPathExpr": "$(NAME)"}, {"subPathExpr": f"{SUB_PATH}/$(NAME)"}),
        ({"subPath": ""}, {"subPath": SUB_PATH}),
        ({"subPathExpr": ""}, {"subPath": SUB_PATH}),
        # An API server rejects both together, so no container gets them.
        ({"subPath": "a", "subPathExpr": "b"}, {"subPath": f"{SUB_PATH}/a", "subPathExpr": f"{SUB_PATH}/b"}),
    ],
)
def test_every_mount_of_user_data_is_below_the_threads_sub_path(
    make_settings: MakeSettings, template: Template, own: dict[str, Any], narrowed: dict[str, Any]
) -> None:
    template = with_mounts(template, {"name": "user-data", "mountPath": "/work", **own})
    pod, _ = rendered(make_settings(USERDATA_PVC_NAME="claim"), template)
    assert all_mounts(pod, "user-data") == [
        {"name": "user-data", "mountPath": "/mnt/user-data", "subPath": SUB_PATH},
        *[{"name": "user-data", "mountPath": "/work", **narrowed}] * 4,
    ]


@pytest.mark.parametrize("path", ["/mnt/user-data", "/mnt/user-data/", "//mnt/user-data"])
def test_a_templates_own_sub_path_is_appended_to_the_threads_sub_path(
    make_settings: MakeSettings, template: Template, path: str
) -> None:
    mount = {"name": "user-data", "mountPath": path, "subPath": "home", "mountPropagation": "None"}
    container(template.pod)["volumeMounts"] = [mount]
    pod, _ = rendered(make_settings(USERDATA_PVC_NAME="claim"), template)
    assert all_mounts(pod, "user-data") == [{**mount, "subPath": f"{SUB_PATH}/home"}]


@pytest.mark.parametrize("variable", ["SKILLS_PVC_NAME", "SKILLS_HOST_PATH"])
def test_every_mount_of_skills_is_read_only_and_at_the_sub_path(
    make_settings: MakeSettings, template: Template, variable: str
) -> None:
    template = with_mounts(template, {"name": "skills", "mountPath": "/s", "readOnly": False})
    own = {} if variable == "SKILLS_HOST_PATH" else {"SKILLS_PVC_SUBPATH_TEMPLATE": "users/{user_id}"}
    pod, _ = rendered(make_settings(**{variable: "/skills" if not own else "claim"}, **own), template)
    narrowed = {"subPath": "users/u_1"} if own else {}
    assert all_mounts(pod, "skills") == [
        {"name": "skills", "mountPath": "/s", "readOnly": True, **narrowed},
        {"name": "skills", "mountPath": "/mnt/skills", "readOnly": True, **narrowed},
        *[{"name": "skills", "mountPath": "/s", "readOnly": True, **narrowed}] * 3,
    ]


def test_the_configured_claim_replaces_one_that_the_template_does_not_create(
    make_settings: MakeSettings, template: Template
) -> None:
    volume = template.pod["spec"]["volumes"][0]
    del volume["emptyDir"]
    volume["persistentVolumeClaim"] = {"claimName": "sandbox-example-data"}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-example-data"}}
    pod, _ = rendered(make_settings(USERDATA_PVC_NAME="claim"), dataclasses.replace(template, extras=(config,)))
    assert volumes(pod)["user-data"] == {"persistentVolumeClaim": {"claimName": "claim"}}
    assert all_mounts(pod, "user-data") == [{"name": "user-data", "mountPath": "/mnt/user-data", "subPath": SUB_PATH}]


def test_no_claim_volume_is_read_only(make_settings: MakeSettings, template: Template) -> None:
    extra = (ExtraMount(host_path="/base/b", container_path="/mnt/skills/custom", read_only=True),)
    settings = make_settings(SKILLS_PVC_NAME="one", USERDATA_PVC_NAME="one", DEER_FLOW_HOST_BASE_DIR="/base")
    pod, _ = rendered(settings, template, Sandbox("abc", "t", "u", extra))
    assert set(volumes(pod)) == {"skills-public", "skills-legacy", "user-data", "extra-0"}
    assert all(source == {"persistentVolumeClaim": {"claimName": "one"}} for source in volumes(pod).values())


def test_extra_mounts_are_directories_of_the_node(make_settings: MakeSettings, template: Template) -> None:
    extra = (
        ExtraMount(host_path="/base/a", container_path="/mnt/acp-workspace"),
        ExtraMount(host_path="/base/b", container_path="/mnt/skills/custom", read_only=True),
    )
    settings = make_settings(DEER_FLOW_HOST_BASE_DIR="/base")
    pod, _ = rendered(settings, template, Sandbox("abc", "t", "u", extra))
    assert volumes(pod)["extra-0"] == {"hostPath": {"path": "/base/a", "type": "DirectoryOrCreate"}}
    assert volumes(pod)["extra-1"] == {"hostPath": {"path": "/base/b", "type": "Directory"}}
    found = mounts(pod)
    assert found["/mnt/acp-workspace"] == {"name": "extra-0", "readOnly": False}
    assert found["/mnt/skills/custom"] == {"name": "extra-1", "readOnly": True}


def test_extra_mounts_are_sub_paths_of_the_user_data_claim(make_settings: MakeSettings, template: Template) -> None:
    extra = (ExtraMount(host_path="/base/users/a/b", container_path="/mnt/acp-workspace"),)
    settings = make_settings(DEER_FLOW_HOST_BASE_DIR="/base", USERDATA_PVC_NAME="data-claim")
    pod, _ = rendered(settings, template, Sandbox("abc", "t", "u", extra))
    assert volumes(pod)["extra-0"] == {"persistentVolumeClaim": {"claimName": "data-claim"}}
    assert mounts(pod)["/mnt/acp-workspace"]["subPath"] == "deer-flow/users/a/b"


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


def test_a_foreign_pod_has_no_revision_and_no_user_data() -> None:
    pod = recorded_pods()["pod-ready"]
    assert revision_of(pod) is None
    assert user_data_source(pod) == {}


def test_user_data_sources_differ_by_sub_path(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(USERDATA_PVC_NAME="claim")
    mine, _ = rendered(settings, template)
    others, _ = rendered(settings, template, Sandbox("abc", "T-2", "u_1"))
    assert user_data_source(mine) == user_data_source(rendered(settings, template)[0])
    assert user_data_source(mine) != user_data_source(others)
