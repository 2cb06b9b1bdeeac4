"""(sandbox, template) → the Pod's volumes and mounts: user data, skills and extra mounts."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sandboxes.models.requests import ExtraMount
from sandboxes.settings import Settings
from sandboxes.spec.manifests import user_data_source
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.unit.manifests import container, mounts, rendered, volumes

MakeSettings = Callable[..., Settings]


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


def test_user_data_sources_differ_by_sub_path(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(USERDATA_PVC_NAME="claim")
    mine, _ = rendered(settings, template)
    others, _ = rendered(settings, template, Sandbox("abc", "T-2", "u_1"))
    assert user_data_source(mine) == user_data_source(rendered(settings, template)[0])
    assert user_data_source(mine) != user_data_source(others)
