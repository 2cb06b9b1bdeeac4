"""The templates that operators write, in the style of what they publish: tests/templates, each tried as a whole.

Those in `accepted` become sandboxes through the service and a real kubectl; those in `refused` stop the start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.app import load_all_templates
from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from tests.audit import TEMPLATES
from tests.conftest import ROOT
from tests.contract.processes import PROVISIONER, environment, run
from tests.contract.service import StartProvisioner, create
from tests.contract.test_yaml import by_kubectl
from tests.kubectl import Kubectl

pytestmark = pytest.mark.slow

FOLDER = ROOT / "tests" / "templates"
ACCEPTED = sorted(one.name for one in (FOLDER / "accepted").iterdir())
NS = "deer-flow"

REFUSED = {
    "boolean-label": "pod.yaml is wrong at metadata.labels.enabled: Input should be a valid string (line 7).",
    "custom-tag": "pod.yaml can't be read: it has a tag that a manifest can't have (line 5).",
    "deployment": "pod.yaml must hold exactly one Pod (v1), and holds an object of kind Deployment.",
    "exported": "pod.yaml is an object exported from a cluster: remove the field metadata.uid (line 9), "
    "metadata.resourceVersion (line 8), status (line 24).",
    "exported-service": "service.yaml has the field spec.clusterIP (line 6): each sandbox needs its own.",
    "helm": "pod.yaml can't be read: it has a key that is a list or a mapping (line 5).",
    "list": "pod.yaml must hold exactly one Pod (v1), and holds an object of kind List.",
    "number-in-config": "more.yaml is wrong at data.port: Input should be a valid string (line 6).",
    "owned": "pod.yaml is an object exported from a cluster: remove the field metadata.ownerReferences (line 5).",
    "secret": "more.yaml may hold only objects of these kinds: ConfigMap (v1), NetworkPolicy (networking.k8s.io/v1), "
    "PersistentVolumeClaim (v1).",
    "tab": "pod.yaml can't be read: it is not valid YAML: found character that cannot start any token (line 5).",
    "two-pods": "pod.yaml must hold exactly one Pod, and holds 2 documents.",
}


def test_bad_templates_of_operators_are_all_named_with_file_line_and_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sorted(REFUSED) == sorted(one.name for one in (FOLDER / "refused").iterdir())
    monkeypatch.setenv("SANDBOX_TEMPLATES_DIR", str(FOLDER / "refused"))
    with pytest.raises(StartupError) as caught:
        load_all_templates(Settings.load())
    said = [f"The template {FOLDER / 'refused' / name}/{text}" for name, text in sorted(REFUSED.items())]
    assert str(caught.value).splitlines() == said


@pytest.mark.parametrize("command", [["check"], ["render", "--sandbox-id", "a"], []], ids=" ".join)
async def test_every_command_says_only_the_sentences_of_bad_templates(command: list[str], tmp_path: Path) -> None:
    environ = environment(tmp_path, SANDBOX_TEMPLATES_DIR=str(FOLDER / "refused"))
    code, stdout, stderr = await run(*PROVISIONER, *command, environ=environ)
    lines = [line for line in stderr.splitlines() if str(FOLDER / "refused") in line]
    assert (code, stdout) == (2 if command == ["check"] else 1, "")
    assert len(lines) == len(REFUSED)
    assert "Traceback" not in stderr


@pytest.mark.starts_in_full
@pytest.mark.role(TEMPLATES)
async def test_templates_of_operators_become_sandboxes_with_all_that_they_say(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    assert len(ACCEPTED) >= 25
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "n"}
    assert (await kubectl("create", "-f", "-", stdin=runtime)).rc == 0
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(FOLDER / "accepted"))
    lost: dict[str, list[str]] = {}
    for name in ACCEPTED:
        await create(provisioner, name, template=name)
        for file in sorted((FOLDER / "accepted" / name).glob("*.yaml")):
            written = by_kubectl(file, tmp_path)
            assert isinstance(written, list | str)
            for obj in written if isinstance(written, list) else []:
                missing = missing_of(obj, cluster, name, file.name)
                lost |= {f"{name}/{file.name}": missing} if missing else {}
    assert lost == {}


def missing_of(written: dict[str, Any], cluster: Cluster, name: str, file: str) -> list[str]:
    """Return the fields that the operator wrote and the sandbox lacks, but for those that the service sets."""
    text = json.dumps({**written, "metadata": {**written.get("metadata", {}), "labels": {}}})
    labels = written.get("metadata", {}).get("labels") or {}
    written = json.loads(text.replace("sandbox-example", f"sandbox-{name}"))
    written["metadata"]["labels"] = labels
    meta = written.get("metadata", {})
    named = {"pod.yaml": f"sandbox-{name}", "service.yaml": f"sandbox-{name}-svc"}.get(file, meta.get("name"))
    stored = cluster.get(written["kind"], NS, str(named))
    assert stored is not None, (name, file)
    return list(lacking(written, stored, file))


# What the service sets, whatever a template says; see docs/how-to/by-hand.md.
SETS = (
    "pod.yaml.spec.containers.sandbox.image",
    "pod.yaml.spec.containers.sandbox.startupProbe.",
    "pod.yaml.metadata.annotations.provisioner/",
    "pod.yaml.metadata.creationTimestamp",
    "service.yaml.metadata.",
    "service.yaml.spec.selector.",
    "more.yaml.spec.podSelector.",
)


def lacking(written: Any, stored: Any, where: str) -> Any:
    if written in (None, [], {}) or where.startswith(SETS):
        return
    if isinstance(written, dict) and isinstance(stored, dict):
        for key, value in written.items():
            yield from lacking(value, stored.get(key), f"{where}.{key}")
    elif isinstance(written, list) and isinstance(stored, list):
        for index, value in enumerate(written):
            name = value.get("name", index) if isinstance(value, dict) else index
            same = [one for one in stored if isinstance(one, dict) and one.get("name") == name] or stored[index:]
            yield from lacking(value, same[0] if same else None, f"{where}.{name}")
    elif ".resources." in where:  # a quantity, which the API server makes a text
        yield from [] if str(written) == stored else [f"{where}: {written!r} became {stored!r}"]
    elif written != stored:
        yield f"{where}: {written!r} became {stored!r}"
