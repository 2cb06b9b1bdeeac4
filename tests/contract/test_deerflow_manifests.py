"""manifests/deerflow: the patched Deployment, whether an API server accepts it, and whether its Role suffices."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.authorization import rights_of
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.conftest import ROOT, VARIABLES
from tests.contract.kubectls import new_kubectl, old_kubectl
from tests.contract.service import StartProvisioner
from tests.contract.test_deploy import ALWAYS_REFUSED, make_namespace, use_everything
from tests.deploy import built, objects
from tests.kubectl import Kubectl

FOLDER = ROOT / "manifests" / "deerflow"
NS, NAME, PROBES = "deer-flow", "deer-flow-provisioner", ("startupProbe", "livenessProbe", "readinessProbe")


def deployment(folder: Path = FOLDER) -> Any:
    return objects(new_kubectl(), folder)["Deployment"]["spec"]["template"]["spec"]


def container(folder: Path = FOLDER) -> Any:
    (one,) = deployment(folder)["containers"]
    return one


def variables(folder: Path = FOLDER) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(folder)["env"]}


def role(folder: Path = FOLDER) -> Any:
    return objects(new_kubectl(), folder)["Role"]["rules"]


@pytest.mark.slow
def test_old_and_new_kubectl_build_the_same_manifests() -> None:
    assert built(old_kubectl(), FOLDER) == built(new_kubectl(), FOLDER)


def test_the_overlay_patches_the_charts_objects_and_adds_none() -> None:
    before, after = objects(new_kubectl(), FOLDER / "base"), objects(new_kubectl(), FOLDER)
    assert set(before) == set(after) == {"Deployment", "Role"}
    assert {obj["metadata"]["name"] for obj in after.values()} == {NAME}
    selector = after["Deployment"]["spec"]["selector"]
    assert selector == before["Deployment"]["spec"]["selector"]
    labels = after["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert selector["matchLabels"].items() <= labels.items()


def test_the_image_key_and_probes_are_replaced_by_ours() -> None:
    assert container()["image"] == "registry.example.com/sandbox-provisioner:latest"
    assert variables()["PROVISIONER_API_KEY"] == {"secretKeyRef": {"name": "provisioner-api-key", "key": "api-key"}}
    paths = [container()[probe]["httpGet"] for probe in PROBES]
    assert [(one["path"], one["port"]) for one in paths] == [("/livez", 8002), ("/livez", 8002), ("/readyz", 8002)]
    ours = objects(new_kubectl(), ".")["Deployment"]["spec"]["template"]["spec"]
    assert deployment()["securityContext"] == ours["securityContext"]
    assert deployment()["volumes"] == ours["volumes"]
    assert deployment()["terminationGracePeriodSeconds"] == ours["terminationGracePeriodSeconds"]


def test_the_charts_variables_stay_and_every_variable_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variables().items() >= variables(FOLDER / "base").items()
    assert set(variables()) <= VARIABLES
    for name, value in variables().items():
        monkeypatch.setenv(name, "x" if isinstance(value, dict) else value)
    monkeypatch.setenv("PROVISIONER_PORT", "tcp://10.0.0.1:8002")  # set by Kubernetes for a Service named `provisioner`
    settings = Settings.load()
    assert (settings.hosts, settings.listen_port) == (("0.0.0.0", "::"), 8002)  # noqa: S104 - in a Pod
    assert settings.base_directory == "/app/backend/.deer-flow"


def test_an_existing_key_and_existing_probes_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "deerflow"
    shutil.copytree(FOLDER, folder)
    path = folder / "base" / "deployment.yaml"
    chart = yaml.safe_load(path.read_text())
    (one,) = chart["spec"]["template"]["spec"]["containers"]
    one["env"].append({"name": "PROVISIONER_API_KEY", "value": "a"})
    one |= {probe: {"exec": {"command": ["true"]}, "periodSeconds": 7} for probe in PROBES}
    path.write_text(yaml.safe_dump(chart))
    assert container(folder) == {**container(), "env": container(folder)["env"]}
    assert variables(folder) == variables()


async def test_the_api_server_accepts_the_pod(kubectl: Kubectl) -> None:
    await make_namespace(kubectl)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NS}}
    result = await kubectl("apply", "-f", "-", stdin=account)
    assert result.rc == 0, result.stderr
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NS}, "spec": deployment()}
    result = await kubectl("apply", "--server-side", "-f", "-", stdin=pod)
    assert result.rc == 0, result.stderr


def test_the_role_is_the_union_of_the_charts_and_ours() -> None:
    charts, ours = rights_of(role(FOLDER / "base")), rights_of(objects(new_kubectl(), ".")["Role"]["rules"])
    assert rights_of(role()) == charts | ours
    assert {right.verb for right in ours - charts if right.resource in ("pods", "services")} == {"patch"}


@pytest.mark.starts_in_full
async def test_the_role_suffices_for_every_operation(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await make_namespace(kubectl)
    cluster.authorization.restrict(NS, role())
    await use_everything(await start_provisioner(), cluster, "persistent")
    assert cluster.authorization.used <= rights_of(role())
    assert cluster.authorization.refused == ALWAYS_REFUSED


# Compose


class ComposeLoader(yaml.SafeLoader):
    """A loader with the tag `!reset`, by which a compose file removes a value of an earlier one."""


ComposeLoader.add_constructor("!reset", lambda _loader, _node: None)


def compose() -> Any:
    text = (FOLDER / "compose.override.yaml").read_text(encoding="utf-8")
    return yaml.load(text, ComposeLoader)  # noqa: S506 - a SafeLoader


def interpolated(value: str, given: dict[str, str]) -> str:
    """Interpolate variables as compose does: `${NAME:-default}`, and `${NAME:?message}` for one that must be set."""

    def filled(match: re.Match[str]) -> str:
        name, sign, word = match.groups()
        assert name in given or sign == "-", f"{name} is not set: {word}"
        return given.get(name, word)

    text = re.sub(r"\$\{(\w+):([-?])([^}]*)\}", filled, value)
    assert "$" not in text
    return text


def test_the_compose_override_changes_one_service_and_builds_nothing() -> None:
    assert set(compose()) == {"services"}
    (name,) = compose()["services"]
    service = compose()["services"][name]
    assert (name, service["image"], service["build"]) == ("provisioner", "sandbox-provisioner", None)
    assert service["healthcheck"]["test"][-1] == "http://127.0.0.1:8002/health"
    ours = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["provisioner"]
    same = ("image", "user", "read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period")
    assert {key: service[key] for key in same} == {key: ours[key] for key in same}


@pytest.mark.parametrize("missing", ["DEER_FLOW_HOME", "PROVISIONER_API_KEY"])
def test_a_missing_compose_variable_is_named(missing: str) -> None:
    given = {"DEER_FLOW_HOME": "/srv", "PROVISIONER_API_KEY": "k3y"}
    del given[missing]
    with pytest.raises(AssertionError, match=missing):
        [interpolated(value, given) for value in compose()["services"]["provisioner"]["environment"].values()]


def test_the_compose_override_mounts_the_threads_user_data_of_the_gateway(
    monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    environment = compose()["services"]["provisioner"]["environment"]
    assert set(environment) <= VARIABLES
    given = {"DEER_FLOW_HOME": "/srv/deer-flow", "PROVISIONER_API_KEY": "k3y"}
    for name, value in environment.items():
        monkeypatch.setenv(name, interpolated(value, given))
    monkeypatch.setenv("PORT", "2026")  # nginx's, from DeerFlow's `.env`
    settings = Settings.load()
    assert (settings.hosts, settings.listen_port, settings.node_host) == (
        ("0.0.0.0", "::"),  # noqa: S104 - in a container
        8002,
        "host.docker.internal",
    )
    assert settings.base_directory == "/srv/deer-flow"
    pod, _ = build(Sandbox("a", "t", "u"), template, settings, applied_at="2026-01-01T00:00:00Z")
    (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "user-data"]
    assert volume["hostPath"]["path"] == "/srv/deer-flow/users/u/threads/t/user-data"
