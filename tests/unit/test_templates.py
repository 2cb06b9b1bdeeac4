"""An operator's templates: valid contents, and the errors for others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import StartupError
from sandboxes.objects import labels_of
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_extras, user_data_source
from sandboxes.spec.options import CreateOptions, Sandbox
from sandboxes.spec.templates import load_template, load_templates
from tests.conftest import ROOT

POD = "kind: Pod\nspec:\n  containers:\n    - name: sandbox\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped template."""
    for shipped in (ROOT / "manifests" / "sandbox").iterdir():
        (tmp_path / shipped.name).write_text(shipped.read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pod.yaml", "a: [\n", "can't be read"),
        ("pod.yaml", "kind: Service\nspec: {}\n", "must hold exactly one Pod"),
        ("pod.yaml", "", "must hold exactly one Pod"),
        ("pod.yaml", "kind: Pod\n", "is wrong at spec: Field required"),
        ("pod.yaml", "kind: Pod\nspec:\n  containers:\n    - name: other\n", "has no container named `sandbox`"),
        ("pod.yaml", POD + "    - image: nameless\n", "is wrong at spec.containers.1.name: Field required"),
        ("pod.yaml", POD + "  volumes: none\n", "is wrong at spec.volumes: Input should be a valid list"),
        (
            "pod.yaml",
            POD + "      resources: none\n",
            "is wrong at spec.containers.0.resources: Input should be a valid",
        ),
        (
            "pod.yaml",
            POD + "metadata:\n  labels:\n    a: 1\n",
            "is wrong at metadata.labels.a: Input should be a valid",
        ),
        ("service.yaml", "- a\n", "must hold exactly one Service"),
        ("service.yaml", "kind: Service\n", "is wrong at spec: Field required"),
    ],
)
def test_an_invalid_template_stops_the_start_with_its_path(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(StartupError) as caught:
        load_template(folder)
    assert str(caught.value).startswith(f"The template {folder / name} {message}")


def test_a_missing_template_stops_the_start_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"pod\.yaml can't be read"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"volumes": [{"name": "extra-0", "emptyDir": {}}]},
            "spec.volumes.0.name: Value error, the service gives this",
        ),
        ({"initContainers": ["x"]}, "spec.initContainers.0: "),
        ({"initContainers": {"a": 1}}, "spec.initContainers: "),
        ({"initContainers": [{"name": "i", "volumeMounts": {"a": 1}}]}, "spec.initContainers.0.volumeMounts: "),
        ({"containers": [{"name": "sandbox", "volumeMounts": [{"name": "a", "mountPath": 5}]}]}, "mountPath: "),
        ({"containers": [{"name": "sandbox", "volumeMounts": [{"name": "a"}]}]}, "mountPath: Field required"),
        (
            {"containers": [{"name": "sandbox", "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": 1}]}]},
            "volumeMounts.0.subPath: ",
        ),
        *(
            (
                {"containers": [{"name": "sandbox", "volumeMounts": [{"name": "a", "mountPath": "/a", key: path}]}]},
                f"volumeMounts.0.{key}: Value error, must be a relative path without `..`",
            )
            for key in ("subPath", "subPathExpr")
            for path in ("..", "a/../../b", "/etc")
        ),
    ],
)
def test_an_invalid_volume_or_mount_of_a_template_stops_the_start(
    folder: Path, spec: dict[str, object], message: str
) -> None:
    pod = {"kind": "Pod", "spec": {"containers": [{"name": "sandbox"}], **spec}}
    (folder / "pod.yaml").write_text(json.dumps(pod))
    with pytest.raises(StartupError, match=re.escape(message)) as raised:
        load_template(folder)
    assert str(raised.value).startswith(f"The template {folder / 'pod.yaml'} is wrong at spec.")


def test_null_fields_are_omitted_and_dates_are_strings(folder: Path, make_settings: Callable[..., Settings]) -> None:
    (folder / "pod.yaml").write_text(
        "kind: Pod\nmetadata:\n  labels:\n  annotations: {since: 2026-01-01}\n"
        "spec:\n  volumes:\n  securityContext:\n  containers:\n    - {name: sandbox, env: null, startupProbe: null}\n"
    )
    pod, _ = build(Sandbox("a", "a", "a"), load_template(folder), make_settings(), applied_at="2026-01-01T00:00:00Z")
    assert pod["metadata"]["annotations"]["since"] == "2026-01-01"
    assert "startupProbe" not in pod["spec"]["containers"][0]
    json.dumps(pod)


CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: sandbox-example-data
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sandbox-example-config}\n"
POLICY = (
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: sandbox-example-policy}\n"
    "spec: {podSelector: {}, policyTypes: [Egress]}\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "can't be read"),
        ("- a\n", "may hold only objects of these kinds: ConfigMap (v1), NetworkPolicy (networking.k8s.io/v1), Pers"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: sandbox-example-a}\n", "may hold only objects of these kinds"),
        ("apiVersion: v2\nkind: ConfigMap\nmetadata: {name: sandbox-example-a}\n", "may hold only objects"),
        (f"apiVersion: v1\nkind: List\nitems: [{{{CONFIG!r}: 1}}]\n", "may hold only objects of these kinds"),
        (CONFIG.replace("config}", "my-config}"), "names an object sandbox-example-my-config: it must be"),
        (CONFIG.replace("sandbox-example-", "sandbox-other-"), "names an object sandbox-other-config"),
        (CONFIG.replace("config}", "Config}"), "names an object sandbox-example-Config"),
        ("apiVersion: v1\nkind: ConfigMap\n", "is wrong at metadata: Field required"),
        (CLAIM.partition("spec:")[0], "is wrong at spec: Field required"),
        (CONFIG.replace("config}", "config, labels: {provisioner/keep: 'true'}}"), "has a ConfigMap with the label"),
        (f"{CONFIG}---\n{CONFIG}", "has a second ConfigMap of the same name"),
    ],
)
def test_an_object_that_is_not_allowed_in_a_template_stops_the_start(folder: Path, text: str, message: str) -> None:
    (folder / "more.yaml").write_text(text)
    with pytest.raises(StartupError) as caught:
        load_template(folder)
    assert str(caught.value).startswith(f"The template {folder / 'more.yaml'} {message}")
    assert "\n" not in str(caught.value) or "can't be read" in message


def test_a_yml_file_in_a_template_stops_the_start(folder: Path) -> None:
    (folder / "more.yml").write_text(CONFIG)
    with pytest.raises(StartupError, match=r"more\.yml would be ignored"):
        load_template(folder)


def test_all_yaml_documents_of_a_template_are_read(folder: Path) -> None:
    (folder / "b.yaml").write_text(f"# nothing\n---\n{CONFIG}---\n{POLICY}")
    (folder / "a.yaml").write_text(CLAIM)
    (folder / "README.md").write_text("not read")
    kinds = [extra["kind"] for extra in load_template(folder).extras]
    assert kinds == ["PersistentVolumeClaim", "ConfigMap", "NetworkPolicy"]


def test_template_objects_and_references_to_them_are_named_after_the_sandbox(
    folder: Path, make_settings: Callable[..., Settings]
) -> None:
    (folder / "more.yaml").write_text(f"{CLAIM}---\n{CONFIG}---\n{POLICY}")
    pod_yaml = (folder / "pod.yaml").read_text()
    named = (
        "  volumes:\n    - {name: c, configMap: {name: sandbox-example-config}}\n"
        "    - {name: sandbox-example, emptyDir: {}}\n"
    )
    (folder / "pod.yaml").write_text(pod_yaml.replace("  volumes:\n", named))
    sandbox = Sandbox("a-b", "t", "u", asks=CreateOptions(template="mine"))
    template, settings = load_template(folder), make_settings()
    claim, config, policy = build_extras(sandbox, template, settings, applied_at="2026-01-01T00:00:00Z")
    assert claim["metadata"] == {
        "name": "sandbox-a-b-data",
        "namespace": "deer-flow",
        "labels": labels_of("a-b"),
        "annotations": {
            "provisioner/thread-id": "t",
            "provisioner/user-id": "u",
            "provisioner/template": "mine",
            "provisioner/applied-at": "2026-01-01T00:00:00Z",
        },
    }
    assert config["metadata"]["name"] == "sandbox-a-b-config"
    assert policy["spec"]["podSelector"] == {"matchLabels": {"sandbox-id": "a-b"}}
    pod, _ = build(sandbox, template, settings, applied_at="2026-01-01T00:00:00Z")
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["c"]["configMap"]["name"] == "sandbox-a-b-config"
    assert "sandbox-example" in volumes  # only whole names of the template's objects
    assert template.extras[0]["metadata"]["name"] == "sandbox-example-data"


def test_the_operators_templates_override_and_hidden_folders_are_ignored(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for name in ("isolated", "mine", ".git"):
        (own / name).mkdir(parents=True)
        for file in ("pod.yaml", "service.yaml"):
            (own / name / file).write_text((folder / file).read_text())
    (own / "README.md").write_text("not read")
    found = load_templates(("default", ROOT / "manifests" / "sandbox"), ROOT / "manifests" / "templates", own)
    assert sorted(found) == ["default", "hardened", "isolated", "mine", "persistent"]
    assert not found["isolated"].is_restricted
    assert found["mine"].description == found["default"].description != ""


def test_a_missing_or_invalid_templates_folder_stops_the_start(tmp_path: Path) -> None:
    default = ("default", ROOT / "manifests" / "sandbox")
    with pytest.raises(StartupError, match=r"The folder of templates .*/none can't be read"):
        load_templates(default, tmp_path / "none")
    (tmp_path / "Not_One").mkdir()
    with pytest.raises(StartupError, match="Not_One has an invalid name"):
        load_templates(default, tmp_path)


def test_shipped_templates_match_their_descriptions() -> None:
    found = load_templates(("default", ROOT / "manifests" / "sandbox"), ROOT / "manifests" / "templates")
    for template in found.values():
        (spread,) = template.pod["spec"]["topologySpreadConstraints"]
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
        assert template.description
    (claim,) = found["persistent"].extras
    assert claim["metadata"]["labels"]["provisioner/keep"] == "true"
    isolated = found["isolated"].pod["spec"]
    assert isolated["runtimeClassName"] == "gvisor"
    assert isolated["securityContext"]["runAsNonRoot"] is True
    security = isolated["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert found["isolated"].description.endswith("The default image can't run there.")
    hardened = found["hardened"].pod["spec"]
    assert hardened["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert hardened["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]},
        "privileged": False,
    }
    # The profile of these depends on the image.
    assert "securityContext" not in found["default"].pod["spec"]
    assert "securityContext" not in found["persistent"].pod["spec"]


@pytest.mark.parametrize(
    "variables",
    [
        {"THREADS_HOST_PATH": "/threads", "SKILLS_HOST_PATH": "/skills", "SANDBOX_SECCOMP": "Unconfined"},
        {"USERDATA_PVC_NAME": "data", "SKILLS_PVC_NAME": "skills"},
    ],
)
def test_no_setting_breaks_a_restricted_template(
    make_settings: Callable[..., Settings], variables: dict[str, str]
) -> None:
    template = load_template(ROOT / "manifests" / "templates" / "isolated")
    pod, _ = build(Sandbox("a", "a", "a"), template, make_settings(**variables), applied_at="2026-01-01T00:00:00Z")
    kinds = {key for volume in pod["spec"]["volumes"] for key in volume} - {"name"}
    assert kinds == ({"emptyDir"} if "THREADS_HOST_PATH" in variables else {"persistentVolumeClaim"})
    assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} == {
        volume["name"] for volume in pod["spec"]["volumes"]
    }
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pod-security: restricted", "pod-security: baseline", "it may be `restricted`"),
        ("emptyDir: {}", "hostPath: {path: /}", "is restricted, and has a hostPath volume"),
    ],
)
def test_a_template_that_breaks_its_restriction_stops_the_start(folder: Path, old: str, new: str, message: str) -> None:
    text = (ROOT / "manifests" / "templates" / "isolated" / "pod.yaml").read_text()
    assert old in text
    (folder / "pod.yaml").write_text(text.replace(old, new))
    with pytest.raises(StartupError, match=message):
        load_template(folder)


@pytest.mark.parametrize("variables", [{"THREADS_HOST_PATH": "/threads"}, {"USERDATA_PVC_NAME": "data"}, {}])
def test_a_templates_own_claim_replaces_the_configured_user_data(
    make_settings: Callable[..., Settings], variables: dict[str, str]
) -> None:
    template = load_template(ROOT / "manifests" / "templates" / "persistent")
    pod, _ = build(Sandbox("a", "t", "u"), template, make_settings(**variables), applied_at="2026-01-01T00:00:00Z")
    source = {"persistentVolumeClaim": {"claimName": "sandbox-a-data"}}
    assert user_data_source(pod) == {"source": source, "subPaths": [""]}
