"""Dockerfile and compose file, checked without a build (CI builds the image)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, VARIABLES
from tests.image import DOCKERFILE, copied_into_the_image, image_environment

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["provisioner"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_fulfils_the_contract() -> None:
    assert "ARG PYTHON_IMAGE=python:3.13-slim-bookworm\nFROM ${PYTHON_IMAGE}" in DOCKERFILE
    assert re.search(r"apt-get install .*\bcurl\b", DOCKERFILE)
    assert "USER 1000:1000" in DOCKERFILE
    assert "EXPOSE 8002" in DOCKERFILE
    assert image_environment()["LISTEN_HOST"] == "0.0.0.0,::"
    assert image_environment()["LISTEN_PORT"] == "8002"
    assert not {"HOST", "PORT"} & set(image_environment())
    assert "KUBECONFIG_PATH=/root/.kube/config" in DOCKERFILE
    assert "chmod 711 /root /root/.kube" in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    for mirror in ("APT_MIRROR", "PYPI_MIRROR", "PIP_INDEX_URL"):
        assert f"ARG {mirror}=\n" in DOCKERFILE


def run_commands(containing: str) -> str:
    """Return the commands of the RUN that contains this text, in one line, as the builder passes them to the shell."""
    runs = re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    (found,) = [run for run in runs if containing in run]
    return str(found).replace("\\\n", "")


def in_bash(commands: str, **variables: str) -> None:
    """Run the commands as the image's SHELL does, with only these variables and a PATH."""
    environ = {"PATH": "/usr/bin:/bin", **variables}
    subprocess.run(["/bin/bash", "-o", "pipefail", "-c", commands], env=environ, check=True)


@pytest.mark.parametrize(
    ("mirror", "base"),
    [
        ("", "http://deb.debian.org"),
        ("mirror.example", "http://mirror.example"),
        ("mirror.example/", "http://mirror.example"),
        ("mirror.example:8080/apt", "http://mirror.example:8080/apt"),
        ("http://mirror.example", "http://mirror.example"),
        ("https://mirror.example/apt/", "https://mirror.example/apt"),
    ],
)
def test_an_apt_mirror_is_used_with_and_without_a_scheme(tmp_path: Path, mirror: str, base: str) -> None:
    sources = tmp_path / "debian.sources"
    text = "Types: deb\nURIs: {0}/debian\nSuites: bookworm\n\nTypes: deb\nURIs: {0}/debian-security\n"
    sources.write_text(text.format("http://deb.debian.org"))
    edit, update, _ = run_commands("APT_MIRROR").partition("&& apt-get update")
    assert update
    in_bash(edit.replace("/etc/apt/sources.list.d/debian.sources", str(sources)), APT_MIRROR=mirror)
    assert sources.read_text() == text.format(base)


@pytest.mark.parametrize(
    ("variables", "index"),
    [
        ({}, []),
        ({"PYPI_MIRROR": "https://one.example/simple"}, ["--index-url", "https://one.example/simple"]),
        ({"PIP_INDEX_URL": "https://two.example/simple"}, ["--index-url", "https://two.example/simple"]),
        (
            {"PYPI_MIRROR": "https://one.example/simple", "PIP_INDEX_URL": "https://two.example/simple"},
            ["--index-url", "https://one.example/simple"],
        ),
    ],
)
def test_a_package_index_is_used_by_either_argument(
    tmp_path: Path, variables: dict[str, str], index: list[str]
) -> None:
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    pip.chmod(0o755)
    unset = {"PYPI_MIRROR": "", "PIP_INDEX_URL": ""}
    in_bash(run_commands("pip install"), **unset | variables | {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["install", "--no-cache-dir", "--require-hashes", *index, "-r", "requirements.txt"]


def test_the_images_health_check_uses_the_listen_port(tmp_path: Path) -> None:
    (health_check,) = re.findall(r"^HEALTHCHECK .*\\\n\s*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$@"\n')
    curl.chmod(0o755)

    def probed_url(**variables: str) -> str:
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
        return subprocess.run(
            json.loads(health_check), env=environ, capture_output=True, text=True, check=True
        ).stdout.split()[-1]

    image = image_environment()
    assert probed_url(**image) == "http://127.0.0.1:8002/health"
    assert (
        probed_url(**image | {"LISTEN_PORT": "9000", "PORT": "tcp://10.0.0.1:8002"}) == "http://127.0.0.1:9000/health"
    )
    assert probed_url(**image | {"LISTEN_PORT": "", "PORT": "9001"}) == "http://127.0.0.1:9001/health"
    assert probed_url(**image | {"LISTEN_PORT": ""}) == "http://127.0.0.1:8002/health"


def test_image_and_run_sh_set_the_same_malloc_variables() -> None:
    malloc = {name: value for name, value in image_environment().items() if name.startswith("MALLOC_")}
    assert malloc == {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_TRIM_THRESHOLD_": "131072",
    }
    script = (ROOT / "scripts" / "run.sh").read_text()
    for name, value in malloc.items():
        assert f'export {name}="${{{name}:-{value}}}"' in script


def test_the_image_contains_the_service_and_no_devcluster() -> None:
    copied = copied_into_the_image()
    assert {"provisioner.py", "sandboxes", "manifests", "requirements.txt"} <= copied
    assert not copied & {"devcluster", "tests", "requirements-dev.txt"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


def test_the_compose_service_fulfils_the_contract() -> None:
    assert SERVICE["profiles"] == ["provisioner"]
    assert SERVICE["container_name"] == "deer-flow-provisioner"
    assert SERVICE["restart"] == "unless-stopped"
    assert SERVICE["extra_hosts"] == ["host.docker.internal:host-gateway"]
    port = "${LISTEN_PORT:-8002}"
    assert SERVICE["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/health"
    assert SERVICE["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert SERVICE["read_only"] is True
    assert SERVICE["tmpfs"] == ["/tmp"]
    assert [volume.rpartition(":/root")[2] for volume in SERVICE["volumes"]] == ["/.kube/config:ro"]
    (network,) = SERVICE["networks"]
    assert COMPOSE["networks"][network]["name"] == network


def test_the_compose_file_passes_only_existing_variables() -> None:
    assert set(SERVICE["environment"]) <= VARIABLES
    # Variables of the host's shell do not apply to addresses in the container.
    fixed = {"LISTEN_HOST": "0.0.0.0,::", "LISTEN_PORT": "${LISTEN_PORT:-8002}"}
    for name, value in SERVICE["environment"].items():
        assert value == fixed.get(name, f"${{{name}:-}}")


def test_compose_and_dockerfile_have_the_same_build_arguments() -> None:
    assert set(SERVICE["build"]["args"]) == set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE))
    assert json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1]) == ["python", "provisioner.py"]


def test_ci_has_least_permissions_and_pinned_actions() -> None:
    workflow = yaml.safe_load(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["jobs"]) == {"test", "audit", "image", "e2e", "deploy", "load"}
    uses = re.findall(r"uses: (\S+)", WORKFLOW)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action


def test_ci_audits_all_pinned_requirements() -> None:
    for requirements in ("requirements.txt", "requirements-dev.txt"):
        assert f"pip-audit --disable-pip --require-hashes -r {requirements}\n" in WORKFLOW


@pytest.mark.parametrize("script", ["scripts/test.sh", ".ci/run"])
def test_scripts_of_ci_are_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111


def test_the_compose_file_passes_every_variable_that_needs_no_mount() -> None:
    # HOST and PORT have other meanings on the host.
    fixed_by_the_image = {"HOST", "PORT", "KUBECONFIG", "KUBECONFIG_PATH", "KUBECTL"}
    needs_a_mount = {"CLUSTERS_FILE", "PROVISIONER_API_KEY_FILE", "SANDBOX_TEMPLATES_DIR", "SANDBOX_GATEWAY_KEYS_FILE"}
    assert set(SERVICE["environment"]) == VARIABLES - fixed_by_the_image - needs_a_mount
