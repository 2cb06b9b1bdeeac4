"""manifests/deploy/components/gateway and gateway-apart: what they add to a deployment, and what stays as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.authorization import Right, rights_of
from sandboxes.deadlines import DEADLINES
from sandboxes.settings import Settings
from tests.contract.kubectls import new_kubectl, old_kubectl
from tests.deploy import ROOT, built, overlay_with

GATEWAY = {"resources": ["../../base"], "components": ["../../components/gateway"]}
APART = {**GATEWAY, "components": ["../../components/gateway", "../../components/gateway-apart"]}
NAME = "sandbox-provisioner-gateway"

Named = dict[tuple[str, str], dict[str, Any]]


def named(folder: str | Path) -> Named:
    """Return the objects of a folder by kind and name."""
    found = yaml.safe_load_all(built(new_kubectl(), folder))
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in found}


@pytest.fixture
def inside(tmp_path: Path) -> Named:
    """The provisioner with the gateway in it."""
    return named(overlay_with(tmp_path, GATEWAY))


@pytest.fixture
def apart(tmp_path: Path) -> Named:
    """The provisioner, and the gateway in Pods of its own."""
    return named(overlay_with(tmp_path, APART))


def pod_of(made: Named, name: str = "sandbox-provisioner") -> dict[str, Any]:
    pod: dict[str, Any] = made["Deployment", name]["spec"]["template"]
    return pod


def container_of(made: Named, name: str = "sandbox-provisioner") -> dict[str, Any]:
    (container,) = pod_of(made, name)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(container: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load the settings as in the container, with the variables that its variables name."""
    values: dict[str, str] = {}
    for one in container["env"]:
        value = one.get("value", {"K8S_NAMESPACE": "deer-flow"}.get(one["name"], "x"))
        values[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], value)
        monkeypatch.setenv(one["name"], values[one["name"]])
    keys = tmp_path / "keys"
    keys.write_text("k" * 44)
    return Settings.load()


def test_the_gateway_is_on_a_service_and_a_port_of_its_own(inside: Named) -> None:
    service = inside["Service", NAME]["spec"]
    assert service["ports"] == [{"name": "gateway", "port": 8003, "targetPort": "gateway", "protocol": "TCP"}]
    assert service["selector"] == pod_of(inside)["metadata"]["labels"]
    assert {"name": "gateway", "containerPort": 8003, "protocol": "TCP"} in container_of(inside)["ports"]
    (rule,) = inside["NetworkPolicy", "sandbox-provisioner"]["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [8002, 8003]


@pytest.mark.parametrize("where", ["inside", "apart"])
def test_urls_begin_with_the_service_and_keys_come_from_the_secret_of_the_documented_command(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Named = request.getfixturevalue(where)
    page = (ROOT / "manifests/deploy/components/gateway/kustomization.yaml").read_text()
    assert "kubectl create secret generic provisioner-gateway-keys -n deer-flow --from-literal=keys=" in page
    for name in ("sandbox-provisioner", *((NAME,) if where == "apart" else ())):
        container, pod = container_of(made, name), pod_of(made, name)["spec"]
        settings = settings_of(container, tmp_path, monkeypatch)
        assert settings.sandbox_gateway_url == f"http://{NAME}.deer-flow:8003"
        (volume,) = [one for one in pod["volumes"] if one["name"] == "gateway-keys"]
        assert volume["secret"] == {"secretName": "provisioner-gateway-keys", "defaultMode": 0o440}
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "gateway-keys"]
        assert settings.sandbox_gateway_keys_file == Path(mount["mountPath"]) / "keys"
        assert mount == {"name": "gateway-keys", "mountPath": mount["mountPath"], "readOnly": True}


def test_the_name_of_the_service_sets_no_variable_of_the_gateway_in_pods_beside_it() -> None:
    prefix = NAME.upper().replace("-", "_")
    assert not any(field.upper().startswith(prefix) for field in Settings.model_fields)


def test_everything_else_of_the_deployment_stays(inside: Named) -> None:
    base = named("base")
    assert set(inside) - set(base) == {("Service", NAME)}
    changed = {key for key in base if inside[key] != base[key]}
    assert changed == {("Deployment", "sandbox-provisioner"), ("NetworkPolicy", "sandbox-provisioner")}
    env = {one["name"] for one in container_of(inside)["env"]} - {one["name"] for one in container_of(base)["env"]}
    assert env == {"SANDBOX_ACCESS", "SANDBOX_GATEWAY_URL", "SANDBOX_GATEWAY_KEYS_FILE"}


def test_apart_the_gateway_may_only_read_and_annotate_pods(apart: Named) -> None:
    rights = rights_of(apart["Role", NAME]["rules"])
    assert rights == {Right(verb, "", "pods") for verb in ("list", "patch", "watch")}
    binding = apart["RoleBinding", NAME]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "deer-flow"}]
    assert binding["roleRef"]["name"] == NAME
    assert pod_of(apart, NAME)["spec"]["serviceAccountName"] == NAME


def test_apart_the_service_leads_to_the_gateways_pods_alone(
    apart: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = pod_of(apart, NAME)["metadata"]["labels"]
    assert labels != pod_of(apart)["metadata"]["labels"]
    spread = pod_of(apart, NAME)["spec"]["topologySpreadConstraints"]
    for selector in (
        apart["Service", NAME]["spec"]["selector"],
        apart["Deployment", NAME]["spec"]["selector"]["matchLabels"],
        apart["PodDisruptionBudget", NAME]["spec"]["selector"]["matchLabels"],
        apart["NetworkPolicy", NAME]["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in spread),
    ):
        assert selector == labels
    assert not settings_of(container_of(apart), tmp_path, monkeypatch).sandbox_gateway_serve


def test_apart_the_pod_runs_as_the_provisioners_and_its_probes_are_not_on_the_gateways_port(apart: Named) -> None:
    container, other = container_of(apart, NAME), container_of(apart)
    assert container["command"] == ["python", "provisioner.py", "gateway"]
    assert container["image"] == other["image"]
    assert container["securityContext"] == other["securityContext"]
    assert pod_of(apart, NAME)["spec"]["securityContext"] == pod_of(apart)["spec"]["securityContext"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez", "liveness": "/livez", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {"http"}
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod_of(apart, NAME)["spec"]["terminationGracePeriodSeconds"] > wait + DEADLINES.shutdown


@pytest.mark.parametrize("text", [GATEWAY, APART], ids=["inside", "apart"])
def test_the_components_fit_every_overlay_and_both_kubectls(tmp_path: Path, text: dict[str, Any]) -> None:
    for name in ("base", "overlays/dev", "overlays/production"):
        folder = overlay_with(tmp_path / name.replace("/", "-"), {**text, "resources": [f"../../{name}"]})
        assert built(old_kubectl(), folder) == built(new_kubectl(), folder)
