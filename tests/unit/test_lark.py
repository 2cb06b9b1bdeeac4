"""Credentials of the Lark CLI, which only the broker may have: no mount and no template shows them to the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandboxes.app import TEMPLATE, load_all_templates
from sandboxes.errors import BadRequest, StartupError
from sandboxes.models.requests import CreateRequest
from sandboxes.settings import Settings
from sandboxes.spec.options import Sandbox, validate
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]
BASE = "/srv/deer-flow"
LARK = "/mnt/integrations/lark-cli"
BROKER = {"LARK_CLI_BROKER_IMAGE": "lark-broker:1"}


def mount(source: str, path: str) -> dict[str, Any]:
    return {"host_path": f"{BASE}/{source}", "container_path": path, "read_only": True}


def made(settings: Settings, template: Template, *mounts: dict[str, Any], **flags: bool) -> Sandbox:
    request = CreateRequest(sandbox_id="a", user_id="u", thread_id="t", extra_mounts=list(mounts), **flags)
    return validate(request, {"default": template}, settings)


@pytest.mark.parametrize(
    "variables",
    [{"DEER_FLOW_HOST_BASE_DIR": BASE}, {"DEER_FLOW_HOST_BASE_DIR": BASE, "USERDATA_PVC_NAME": "home"}],
    ids=["node", "claim"],
)
@pytest.mark.parametrize("path", ["/mnt/skills/custom", "/mnt/acp-workspace", f"{LARK}/runtime"])
@pytest.mark.parametrize(
    "source",
    [
        "users",
        "users/u",
        "users/other",
        "users/u/integrations",
        "users/u/integrations/lark-cli",
        "users/u/integrations/lark-cli/config",
        "users/u/integrations/lark-cli/config/locks",
        "users/u/x/../integrations//lark-cli/data/",
    ],
)
def test_no_other_mount_shows_credentials_that_the_broker_keeps(
    make_settings: MakeSettings, template: Template, source: str, path: str, variables: dict[str, str]
) -> None:
    settings = make_settings(**variables, **BROKER)
    for flag in (True, False):
        with pytest.raises(BadRequest, match=f"credentials of the Lark CLI at {path}"):
            made(settings, template, mount(source, path), provision_lark_cli_broker=flag)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("users/u/skills_view/custom", "/mnt/skills/custom"),
        ("users/u/skills_view/integrations", "/mnt/skills/integrations"),
        ("users/u/skills_view/integrations/lark-cli", "/mnt/skills/integrations"),
        ("users/u/threads/t/skills_view/custom", "/mnt/skills/custom"),
        ("users/u/threads/t/acp-workspace", "/mnt/acp-workspace"),
        ("skills_view/public", "/mnt/skills/public"),
        ("integrations/lark-cli/sandbox-cli", f"{LARK}/runtime"),
        ("users/u/integrations-of/lark-cli", "/mnt/skills/custom"),
    ],
)
def test_what_deerflow_mounts_beside_the_credentials_stays(
    make_settings: MakeSettings, template: Template, source: str, path: str
) -> None:
    settings = make_settings(DEER_FLOW_HOST_BASE_DIR=BASE, **BROKER)
    credentials = mount("users/u/integrations/lark-cli/config", f"{LARK}/config")
    sandbox = made(settings, template, credentials, mount(source, path))
    assert [one.container_path for one in sandbox.extra_mounts] == [path]


def test_credentials_that_are_kept_elsewhere_are_guarded_by_the_request_itself(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(DEER_FLOW_HOST_BASE_DIR="/srv", **BROKER)
    credentials = mount("secrets/config", f"{LARK}/config")
    for source in ("secrets", "secrets/config", "secrets/config/keys"):
        with pytest.raises(BadRequest, match="credentials"):
            made(settings, template, credentials, mount(source, "/mnt/acp-workspace"))
    assert made(settings, template, credentials, mount("secrets-not", "/mnt/acp-workspace")).extra_mounts


def test_without_the_broker_deerflow_mounts_what_it_likes(make_settings: MakeSettings, template: Template) -> None:
    settings = make_settings(DEER_FLOW_HOST_BASE_DIR=BASE, LARK_CLI_INIT_IMAGE="lark-init:1")
    assert made(settings, template, mount("users/u/integrations", "/mnt/acp-workspace")).extra_mounts


def of_container(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        spec["containers"].append({"name": "sidecar", "image": "s:1", **fields})

    return change


def mounted(path: str) -> Callable[[dict[str, Any]], None]:
    return of_container(volumeMounts=[{"name": "own", "mountPath": path}])


def of_init(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec.update(initContainers=[{"name": name, "image": "i:1"}])


DEFEATING = {
    "spec.shareProcessNamespace": lambda spec: spec.update(shareProcessNamespace=True),
    "spec.hostPID": lambda spec: spec.update(hostPID=True),
    "spec.hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "spec.containers[1].name": of_container(name="lark-cli-broker"),
    "spec.initContainers[0].name": of_init("lark-cli-shim-init"),
    "spec.containers[1].volumeMounts[0].mountPath": mounted(LARK),
}


def load(
    tmp_path: Path, make_settings: MakeSettings, change: Callable[[dict[str, Any]], None], **variables: str
) -> str:
    """Load all templates, one of them with a changed Pod; return the path of its file."""
    folder = tmp_path / "templates" / "mine"
    folder.mkdir(parents=True)
    pod = yaml.safe_load((TEMPLATE / "pod.yaml").read_text(encoding="utf-8"))
    change(pod["spec"])
    (folder / "pod.yaml").write_text(yaml.safe_dump(pod), encoding="utf-8")
    (folder / "service.yaml").write_text((TEMPLATE / "service.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    load_all_templates(make_settings(SANDBOX_TEMPLATES_DIR=folder.parent, **variables))
    return str(folder / "pod.yaml")


@pytest.mark.parametrize("field", DEFEATING)
def test_a_template_that_would_open_the_credentials_stops_the_start_with_the_broker(
    tmp_path: Path, make_settings: MakeSettings, field: str
) -> None:
    with pytest.raises(StartupError) as caught:
        load(tmp_path, make_settings, DEFEATING[field], **BROKER)
    said = str(caught.value)
    assert said.count("\n") == 0
    assert str(tmp_path / "templates" / "mine" / "pod.yaml") in said
    assert said.endswith(f"remove or change {field}.")


@pytest.mark.parametrize(
    "path",
    [f"{LARK}/config", f"{LARK}/", "/mnt/x/../integrations/lark-cli/data", "//var//lark", "/var/lark/config"],
)
def test_a_template_may_mount_nothing_where_the_broker_works(
    tmp_path: Path, make_settings: MakeSettings, path: str
) -> None:
    with pytest.raises(StartupError, match="volumeMounts"):
        load(tmp_path, make_settings, mounted(path), **BROKER)


@pytest.mark.parametrize("field", DEFEATING)
def test_without_the_broker_these_templates_can_be_used(
    tmp_path: Path, make_settings: MakeSettings, field: str
) -> None:
    assert load(tmp_path, make_settings, DEFEATING[field], LARK_CLI_INIT_IMAGE="lark-init:1")


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(shareProcessNamespace=False, hostPID=None),
        mounted("/var/larkspur"),
        of_container(name="lark"),
    ],
)
def test_other_templates_can_be_used_with_the_broker(
    tmp_path: Path, make_settings: MakeSettings, change: Callable[[dict[str, Any]], None]
) -> None:
    assert load(tmp_path, make_settings, change, **BROKER)
