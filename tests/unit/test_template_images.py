"""Templates whose containers name no image, and whose objects have another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_template_files import HEAD, SECRET, folder, refusal

__all__ = ["folder"]


@pytest.mark.parametrize("image", [f'"{SECRET}/x:1"', "reg/x:1 ", "Reg/X", "https://reg/x", "reg/x:", "reg/x:1\n"])
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_an_image_of_any_container_must_be_an_image_reference(folder: Path, where: str, image: str) -> None:
    side = {"name": "side", "image": image}
    spec: dict[str, Any] = {"containers": [{"name": "sandbox"}]}
    spec[where] = [*spec.get(where, []), side]
    said = refusal(folder, "pod.yaml", json.dumps({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
    assert f"is wrong at spec.{where}.{len(spec[where]) - 1}.image: Value error, an image reference" in said


@pytest.mark.parametrize("version", ["v2", "1", "apps/v1", "[v1]"])
def test_a_pod_of_another_version_is_refused_by_its_version(folder: Path, version: str) -> None:
    said = refusal(folder, "pod.yaml", HEAD.replace("v1", version, 1))
    assert said.endswith("must hold exactly one Pod (v1), and holds a Pod of another apiVersion.")
