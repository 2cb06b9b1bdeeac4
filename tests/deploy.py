"""What `kubectl kustomize` makes of the folders of manifests/deploy, as tests read it."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "manifests" / "deploy"
OVERLAYS = (".", "overlays/dev", "overlays/production")

Objects = dict[str, dict[str, Any]]


@functools.cache
def built(kubectl: Path, folder: str | Path) -> str:
    """Return the YAML that a folder is built to; must succeed."""
    argv: list[str] = [str(kubectl), "kustomize", str(DEPLOY / folder)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def objects(kubectl: Path, folder: str | Path) -> Objects:
    """Return what a folder is built to, by kind: there is one of each."""
    found = list(yaml.safe_load_all(built(kubectl, folder)))
    by_kind = {obj["kind"]: obj for obj in found}
    assert len(by_kind) == len(found)
    return by_kind


def overlay_with(directory: Path, text: dict[str, Any]) -> Path:
    """Return an operator's overlay; in a copy, since kustomize takes its bases from beside it."""
    copy = directory / "manifests" / "deploy"
    for source in DEPLOY.rglob("*.yaml"):
        target = copy / source.relative_to(DEPLOY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    overlay = copy / "overlays" / "mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return overlay
