"""Builds the folders of manifests/deploy with `kubectl kustomize`."""

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
    """Return the YAML that kustomize builds from a folder; fails the test if it fails or prints a warning."""
    argv: list[str] = [str(kubectl), "kustomize", str(DEPLOY / folder)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def objects(kubectl: Path, folder: str | Path) -> Objects:
    """Return the objects that kustomize builds from a folder, by kind; fails if a kind occurs twice."""
    found = list(yaml.safe_load_all(built(kubectl, folder)))
    by_kind = {obj["kind"]: obj for obj in found}
    assert len(by_kind) == len(found)
    return by_kind


def all_objects(kubectl: Path, folder: str | Path) -> list[dict[str, Any]]:
    """Return the objects that kustomize builds from a folder, which may have several of a kind."""
    return list(yaml.safe_load_all(built(kubectl, folder)))


def overlay_with(directory: Path, text: dict[str, Any]) -> Path:
    """Write an operator's overlay and return its folder; in a copy, since its bases are relative paths."""
    copy = directory / "manifests" / "deploy"
    for source in DEPLOY.rglob("*.yaml"):
        target = copy / source.relative_to(DEPLOY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    overlay = copy / "overlays" / "mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return overlay
