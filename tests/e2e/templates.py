"""Templates of an operator's own: copies of the shipped one with changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

SHIPPED = ROOT / "manifests" / "sandbox"


def write_template(templates: Path, name: str, *, pod: dict[str, Any] | None = None, **container: object) -> str:
    """Write a template into the folder of templates, and return the folder, for SANDBOX_TEMPLATES_DIR.

    `pod`: fields of the Pod's spec, `container`: fields of its container. Lists are extended, other values replaced.
    """
    folder = templates / name
    folder.mkdir(parents=True)
    (folder / "service.yaml").write_text((SHIPPED / "service.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    manifest = yaml.safe_load((SHIPPED / "pod.yaml").read_text(encoding="utf-8"))
    spec = manifest["spec"]
    for target, changes in ((spec["containers"][0], container), (spec, pod or {})):
        for field, value in changes.items():
            target[field] = target[field] + value if isinstance(target.get(field), list) else value
    (folder / "pod.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return str(templates)
