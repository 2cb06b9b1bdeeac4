"""The seccomp profile of a Pod: by SANDBOX_SECCOMP, by its template, or by its image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandboxes.api.callers import Callers
from sandboxes.app import _warnings, load_all_templates
from sandboxes.settings import DEFAULT_IMAGE, Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import CreateOptions, Sandbox
from sandboxes.spec.seccomp import is_all_in_one
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]
AT = "2026-01-01T00:00:00Z"
DIGEST = "sha256:" + "0" * 64
RUNTIME_DEFAULT = {"type": "RuntimeDefault"}

ALL_IN_ONE = [
    DEFAULT_IMAGE,
    "all-in-one-sandbox",
    "all-in-one-sandbox:1.0",
    "ghcr.io/agent-infra/all-in-one-sandbox",
    "localhost:5000/all-in-one-sandbox:latest",
    f"registry.example/a/b/all-in-one-sandbox:1@{DIGEST}",
    f"[::1]:5000/all-in-one-sandbox@{DIGEST}",
]
OTHERS = [
    "python:3.13",
    "all-in-one-sandbox/slim:1",
    "all-in-one-sandbox:5000/python",
    "registry.example/my-all-in-one-sandbox",
    "registry.example/all-in-one-sandbox-slim",
    "registry.example/python:all-in-one-sandbox",
]


def profile_of(settings: Settings, template: Template, image: str | None = None) -> Any:
    """Return the Pod's profile, None without one."""
    sandbox = Sandbox("a", "t", "u", asks=CreateOptions(image=image))
    pod, _ = build(sandbox, template, settings, applied_at=AT)
    return pod["spec"].get("securityContext", {}).get("seccompProfile")


def with_profile(template: Template, profile: dict[str, str] | None) -> Template:
    """Set the profile of the template's Pod."""
    template.pod["spec"]["securityContext"] = {"fsGroup": 1000} | ({"seccompProfile": profile} if profile else {})
    return template


@pytest.mark.parametrize("image", ALL_IN_ONE)
def test_the_all_in_one_image_has_no_profile_by_setting_or_request(
    make_settings: MakeSettings, template: Template, image: str
) -> None:
    assert is_all_in_one(image)
    assert profile_of(make_settings(SANDBOX_IMAGE="python:3.13"), template, image) is None
    assert profile_of(make_settings(SANDBOX_IMAGE=image), template) is None


@pytest.mark.parametrize("image", OTHERS)
def test_any_other_image_has_the_runtime_default_profile(
    make_settings: MakeSettings, template: Template, image: str
) -> None:
    assert not is_all_in_one(image)
    assert profile_of(make_settings(), template, image) == RUNTIME_DEFAULT
    assert profile_of(make_settings(SANDBOX_IMAGE=image), template) == RUNTIME_DEFAULT


@pytest.mark.parametrize("image", [DEFAULT_IMAGE, "python:3.13"])
@pytest.mark.parametrize("profile", [None, {"type": "Localhost", "localhostProfile": "chrome.json"}])
@pytest.mark.parametrize("seccomp", ["RuntimeDefault", "Unconfined"])
def test_the_variable_overrides_template_and_image(
    make_settings: MakeSettings, template: Template, image: str, profile: dict[str, str] | None, seccomp: str
) -> None:
    assert profile_of(make_settings(SANDBOX_SECCOMP=seccomp), with_profile(template, profile), image) == {
        "type": seccomp
    }


@pytest.mark.parametrize("image", [DEFAULT_IMAGE, "python:3.13"])
@pytest.mark.parametrize(
    "profile", [RUNTIME_DEFAULT, {"type": "Unconfined"}, {"type": "Localhost", "localhostProfile": "chrome.json"}]
)
def test_the_templates_own_profile_overrides_the_image(
    make_settings: MakeSettings, template: Template, image: str, profile: dict[str, str]
) -> None:
    assert profile_of(make_settings(), with_profile(template, profile), image) == profile


def test_a_containers_own_profile_is_kept(make_settings: MakeSettings, template: Template) -> None:
    security = {"privileged": False, "seccompProfile": {"type": "Unconfined"}}
    template.pod["spec"]["containers"][0]["securityContext"] = security
    pod, _ = build(Sandbox("a", "t", "u"), template, make_settings(SANDBOX_SECCOMP="RuntimeDefault"), applied_at=AT)
    assert pod["spec"]["containers"][0]["securityContext"] == security
    assert pod["spec"]["securityContext"] == {"seccompProfile": RUNTIME_DEFAULT}


def test_the_rest_of_the_security_context_is_kept(make_settings: MakeSettings, template: Template) -> None:
    template = with_profile(template, None)
    for image, expected in ((DEFAULT_IMAGE, {}), ("python:3.13", {"seccompProfile": RUNTIME_DEFAULT})):
        sandbox = Sandbox("a", "t", "u", asks=CreateOptions(image=image))
        pod, _ = build(sandbox, template, make_settings(), applied_at=AT)
        assert pod["spec"]["securityContext"] == {"fsGroup": 1000, **expected}


@pytest.mark.parametrize(
    ("variables", "profiles"),
    [
        ({}, {"default": None, "persistent": None, "hardened": "RuntimeDefault", "isolated": "RuntimeDefault"}),
        (
            {"SANDBOX_IMAGE": "python:3.13"},
            dict.fromkeys(("default", "persistent", "hardened", "isolated"), "RuntimeDefault"),
        ),
        (
            {"SANDBOX_SECCOMP": "Unconfined"},
            {**dict.fromkeys(("default", "persistent", "hardened"), "Unconfined"), "isolated": "RuntimeDefault"},
        ),
    ],
)
def test_each_shipped_template_has_its_documented_profile(
    make_settings: MakeSettings, variables: dict[str, str], profiles: dict[str, str | None]
) -> None:
    settings = make_settings(**variables)
    found = {name: profile_of(settings, template) for name, template in load_all_templates(settings).items()}
    assert found == {name: profile and {"type": profile} for name, profile in profiles.items()}


@pytest.mark.parametrize(
    ("variables", "is_warned"),
    [
        ({}, True),
        ({"SANDBOX_IMAGE": "registry.example/all-in-one-sandbox:1"}, True),
        ({"SANDBOX_IMAGE": "python:3.13", "ALLOW_FIELDS": "image"}, True),
        ({"SANDBOX_IMAGE": "python:3.13"}, False),
        ({"SANDBOX_SECCOMP": "RuntimeDefault"}, False),
        ({"SANDBOX_SECCOMP": "Unconfined"}, False),
    ],
)
def test_a_missing_profile_is_warned_about_once_at_startup(
    make_settings: MakeSettings, variables: dict[str, str], *, is_warned: bool
) -> None:
    settings = make_settings(**variables)
    warnings = [one for one in _warnings(settings, Callers(settings, in_pod=False)) if "SANDBOX_SECCOMP" in one]
    assert len(warnings) == is_warned
    assert all("SANDBOX_SECCOMP=RuntimeDefault" in one for one in warnings)
