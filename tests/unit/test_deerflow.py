"""Pods for DeerFlow's client, in each of its setups: `tests/recorded/deerflow` has its requests and the mounts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from sandboxes.cli import render
from sandboxes.errors import BadRequest, StartupError
from sandboxes.models.requests import CreateRequest
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import validate
from sandboxes.spec.templates import Template
from tests.record import RECORDED

MakeSettings = Callable[..., Settings]
CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (RECORDED / "deerflow").glob("*.json")}
LARK = "/mnt/integrations/lark-cli"
RUNTIME = {"host_path": "/srv/deer-flow/lark/runtime", "container_path": f"{LARK}/runtime", "read_only": True}
IMAGES = {"LARK_CLI_INIT_IMAGE": "lark-init:1", "LARK_CLI_BROKER_IMAGE": "lark-broker:1"}
CREDENTIALS = [f"{LARK}/config", f"{LARK}/config/locks", f"{LARK}/data"]


def pod_of(request: dict[str, Any], settings: Settings, template: Template) -> Any:
    sandbox = validate(CreateRequest(**request), {"default": template}, settings)
    return build(sandbox, template, settings, applied_at="2026-01-01T00:00:00Z")[0]


def container(pod: Any, name: str = "sandbox") -> Any:
    every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    return next(one for one in every if one["name"] == name)


def mounts_of(pod: Any, name: str = "sandbox") -> dict[str, list[Any]]:
    """Return a container's mounts in the record's form: by path, the source, its kind, and whether it is read-only."""
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    found = {}
    for mount in container(pod, name)["volumeMounts"]:
        volume, read_only = volumes[mount["name"]], mount.get("readOnly", False)
        if "hostPath" in volume:
            source = [volume["hostPath"]["path"], volume["hostPath"]["type"]]
            assert "subPath" not in mount
        elif "persistentVolumeClaim" in volume:
            assert list(volume["persistentVolumeClaim"]) == ["claimName"], "never read-only at the source"
            source = [f"{volume['persistentVolumeClaim']['claimName']}:{mount['subPath']}", "claim"]
        else:
            source = ["", "emptyDir"]
        assert mount["mountPath"] not in found, "a path twice"
        found[mount["mountPath"]] = [*source, read_only]
    return found


def with_lark(case: str, **flags: bool) -> dict[str, Any]:
    request: dict[str, Any] = copy.deepcopy(CASES[case]["request"])
    request["extra_mounts"].append(RUNTIME)
    return {**request, **flags}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_pod_has_exactly_the_recorded_mounts(case: str, make_settings: MakeSettings, template: Template) -> None:
    pod = pod_of(CASES[case]["request"], make_settings(**CASES[case]["environment"]), template)
    assert mounts_of(pod) == CASES[case]["mounts"]
    names = [one["name"] for one in pod["spec"]["volumes"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", sorted(CASES))
def test_mounts_below_a_read_only_mount_have_its_source(
    case: str, make_settings: MakeSettings, template: Template
) -> None:
    found = mounts_of(pod_of(CASES[case]["request"], make_settings(**CASES[case]["environment"]), template))
    for parent, (source, _, read_only) in found.items():
        for child, (child_source, _, _) in found.items():
            if read_only and child.startswith(f"{parent}/"):
                assert child_source == source + child.removeprefix(parent)


@pytest.mark.parametrize("case", sorted(CASES))
def test_render_prints_the_recorded_mounts(case: str, make_settings: MakeSettings) -> None:
    printed = json.loads(render(make_settings(**CASES[case]["environment"]), json.dumps(CASES[case]["request"])))
    [pod] = [obj for obj in printed["items"] if obj["kind"] == "Pod"]
    assert mounts_of(pod) == CASES[case]["mounts"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "Invalid JSON"),
        ("[]", "object"),
        ('{"sandbox_id": "A"}', "sandbox_id"),
        ('{"sandbox_id": "a", "template": "none"}', "Template none does not exist"),
    ],
)
def test_render_rejects_an_invalid_body(body: str, sentence: str, make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError, match=sentence):
        render(make_settings(), body)


@pytest.mark.parametrize("case", ["chart", "chart-pr-5077"])
def test_no_host_path_is_mounted_with_a_claim(case: str, make_settings: MakeSettings, template: Template) -> None:
    pod = pod_of(CASES[case]["request"], make_settings(**CASES[case]["environment"]), template)
    assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]


def test_a_threads_path_alone_mounts_no_skills(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(THREADS_HOST_PATH="/srv/deer-flow/threads")
    assert list(mounts_of(pod_of({"sandbox_id": "a", "thread_id": "t"}, settings, template))) == ["/mnt/user-data"]


def test_an_agents_own_skills_replace_the_public_ones(make_settings: MakeSettings, template: Template) -> None:
    case = copy.deepcopy(CASES["compose-pr-5077"])
    own = "/srv/deer-flow/users/u/threads/t/skills_view/public"
    case["request"]["extra_mounts"][1]["host_path"] = own
    pod = pod_of(case["request"], make_settings(**case["environment"]), template)
    assert mounts_of(pod)["/mnt/skills/public"] == [own, "Directory", True]


@pytest.mark.parametrize("skills", ["SKILLS_HOST_PATH", "SKILLS_PVC_NAME"])
def test_another_skills_path_leaves_mnt_skills_unmounted(
    skills: str, make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(**{skills: "/skills" if skills == "SKILLS_HOST_PATH" else "claim"})
    pod = pod_of({"sandbox_id": "a", "skills_container_path": "/opt/skills"}, settings, template)
    assert {one["mountPath"] for one in container(pod)["volumeMounts"]} == {"/opt/skills", "/mnt/user-data"}


def test_a_skills_claim_mounts_only_its_public_folder_beside_mounts_below_it(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(
        SKILLS_PVC_NAME="skills",
        SKILLS_PVC_SUBPATH_TEMPLATE="of/{user_id}",
        **CASES["chart"]["environment"],
    )
    found = mounts_of(pod_of(CASES["chart"]["request"], settings, template))
    user = CASES["chart"]["request"]["user_id"]
    assert found == {**CASES["chart"]["mounts"], "/mnt/skills/public": [f"skills:of/{user}/public", "claim", True]}


@pytest.mark.parametrize(
    ("threads", "base"),
    [
        ("/srv/deer-flow/threads", "/srv/deer-flow"),
        ("/srv/deer-flow/threads/", "/srv/deer-flow"),
        ("//srv/deer-flow/threads", "/srv/deer-flow"),
        ("/threads", None),  # the root is the whole node
        ("/srv/other", None),
        ("/srv/{user_id}/threads", None),
        ("/srv/threads/{thread_id}", None),
    ],
)
def test_the_base_directory_is_the_parent_of_the_threads_folder_except_the_root(
    threads: str, base: str | None, make_settings: MakeSettings
) -> None:
    assert make_settings(THREADS_HOST_PATH=threads).base_directory == base


def test_mounts_without_a_base_directory_are_rejected_with_the_variables_name(
    make_settings: MakeSettings, template: Template
) -> None:
    with pytest.raises(BadRequest, match="DEER_FLOW_HOST_BASE_DIR"):
        pod_of(CASES["compose"]["request"], make_settings(), template)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/d/users/{user_id}/threads", "/d/users/u/threads/t/user-data"),
        ("/d/{user_id}/{thread_id}", "/d/u/t/user-data"),
        ("/d", "/d/t/user-data"),
    ],
)
def test_placeholders_in_the_threads_path_are_replaced(
    path: str, expected: str, make_settings: MakeSettings, template: Template
) -> None:
    pod = pod_of({"sandbox_id": "a", "thread_id": "t", "user_id": "u"}, make_settings(THREADS_HOST_PATH=path), template)
    assert mounts_of(pod)["/mnt/user-data"] == [expected, "DirectoryOrCreate", False]


# Lark


def test_the_init_image_installs_the_lark_cli_into_a_read_only_mount(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(**{**CASES["compose"]["environment"], "LARK_CLI_INIT_IMAGE": "lark-init:1"})
    pod = pod_of(with_lark("compose", provision_lark_cli_runtime=True), settings, template)
    assert mounts_of(pod) == {**CASES["compose"]["mounts"], f"{LARK}/runtime": ["", "emptyDir", True]}
    assert [one["name"] for one in pod["spec"]["initContainers"]] == ["lark-cli-init"]
    assert mounts_of(pod, "lark-cli-init") == {f"{LARK}/runtime": ["", "emptyDir", False]}
    init = container(pod, "lark-cli-init")
    assert init["image"] == "lark-init:1"
    assert init["env"] == [{"name": "LARK_CLI_RUNTIME_DEST", "value": f"{LARK}/runtime"}]


def test_without_the_flag_the_runtime_is_mounted_as_requested(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(**{**CASES["compose"]["environment"], "LARK_CLI_INIT_IMAGE": "lark-init:1"})
    pod = pod_of(with_lark("compose"), settings, template)
    assert mounts_of(pod)[f"{LARK}/runtime"] == [RUNTIME["host_path"], "Directory", True]
    assert "initContainers" not in pod["spec"]


@pytest.mark.parametrize("case", ["compose", "chart"])
def test_only_the_broker_has_the_credentials(case: str, make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(
        **{**CASES[case]["environment"], **IMAGES, "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS": "auth,config"}
    )
    request = copy.deepcopy(CASES[case]["request"]) | {"provision_lark_cli_broker": True}
    pod = pod_of(request, settings, template)
    rows = CASES[case]["mounts"]
    others = {path: row for path, row in rows.items() if path not in CREDENTIALS}
    assert mounts_of(pod) == {**others, f"{LARK}/runtime": ["", "emptyDir", True]}
    assert mounts_of(pod, "lark-cli-broker") == {
        "/var/lark/config": rows[f"{LARK}/config"],
        "/var/lark/config/locks": rows[f"{LARK}/config/locks"],
        "/var/lark/data": rows[f"{LARK}/data"],
    }
    shim, broker = container(pod, "lark-cli-shim-init"), container(pod, "lark-cli-broker")
    assert (shim["args"], broker["args"]) == (["install-shim", f"{LARK}/runtime"], ["serve"])
    assert {shim["image"], broker["image"]} == {"lark-broker:1"}
    assert {one["name"]: one["value"] for one in broker["env"]} == {
        "LARKSUITE_CLI_CONFIG_DIR": "/var/lark/config",
        "LARKSUITE_CLI_DATA_DIR": "/var/lark/data",
        "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS": "auth,config",
    }
    assert {"name": "DEERFLOW_LARK_BROKER_URL", "value": "http://127.0.0.1:8788"} in container(pod)["env"]
    # The broker runs as root, and the credentials belong to the gateway's user, with mode 0700.
    needed = {"lark-cli-shim-init": {}, "lark-cli-broker": {"add": ["DAC_OVERRIDE", "FOWNER"]}}
    for one in (shim, broker):
        assert one["securityContext"] == {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], **needed[one["name"]]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {kind: set(amounts) for kind, amounts in one["resources"].items()} == {
            "requests": {"cpu", "memory", "ephemeral-storage"},
            "limits": {"cpu", "memory", "ephemeral-storage"},
        }


@pytest.mark.parametrize("flags", [{}, {"provision_lark_cli_runtime": True}])
def test_with_a_broker_image_no_request_mounts_credentials_in_the_sandbox(
    flags: dict[str, bool], make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(**{**CASES["compose"]["environment"], **IMAGES})
    pod = pod_of(copy.deepcopy(CASES["compose"]["request"]) | flags, settings, template)
    assert not set(mounts_of(pod)) & set(CREDENTIALS)
    assert not [one for one in pod["spec"]["volumes"] if "lark-cli" in str(one.get("hostPath"))]


def test_the_brokers_url_overrides_the_callers(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(**{**CASES["compose"]["environment"], **IMAGES})
    request = copy.deepcopy(CASES["compose"]["request"]) | {
        "provision_lark_cli_broker": True,
        "env": {"DEERFLOW_LARK_BROKER_URL": "http://elsewhere"},
    }
    env = [one for one in container(pod_of(request, settings, template))["env"] if "BROKER_URL" in one["name"]]
    assert env == [{"name": "DEERFLOW_LARK_BROKER_URL", "value": "http://127.0.0.1:8788"}]
