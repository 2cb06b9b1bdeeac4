"""The template of a sandbox, as an operator may write it, and what is said when it can't be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import StartupError
from sandboxes.manifests import Sandbox, build
from sandboxes.settings import Settings
from sandboxes.templates import load_template
from tests.conftest import ROOT

POD = "kind: Pod\nspec:\n  containers:\n    - name: sandbox\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the template that is shipped."""
    for shipped in (ROOT / "manifests" / "sandbox").iterdir():
        (tmp_path / shipped.name).write_text(shipped.read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "said"),
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
def test_a_template_that_can_not_be_used_is_named(folder: Path, name: str, text: str, said: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(StartupError) as caught:
        load_template(folder)
    assert str(caught.value).startswith(f"The template {folder / name} {said}")


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"pod\.yaml can't be read"):
        load_template(tmp_path)


def test_fields_that_are_null_are_left_out_and_dates_are_text(
    folder: Path, make_settings: Callable[..., Settings]
) -> None:
    (folder / "pod.yaml").write_text(
        "kind: Pod\nmetadata:\n  labels:\n  annotations: {since: 2026-01-01}\n"
        "spec:\n  volumes:\n  securityContext:\n  containers:\n    - {name: sandbox, env: null, startupProbe: null}\n"
    )
    pod, _ = build(Sandbox("a", "a", "a"), load_template(folder), make_settings(), applied_at="2026-01-01T00:00:00Z")
    assert pod["metadata"]["annotations"]["since"] == "2026-01-01"
    assert "startupProbe" not in pod["spec"]["containers"][0]
    json.dumps(pod)
