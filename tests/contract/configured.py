"""The template `configured`, with a ConfigMap and a NetworkPolicy as extra objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: sandbox-example-config
data: {greeting: hello}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: sandbox-example-policy
spec:
  podSelector: {matchLabels: {sandbox-id: example}}
  policyTypes: [Egress]
"""


def write_configured(templates: Path) -> Path:
    """Write the template `configured`, with a ConfigMap and a NetworkPolicy; return the folder of templates."""
    folder = templates / "configured"
    folder.mkdir(parents=True)
    for shipped in (ROOT / "manifests" / "sandbox").iterdir():
        text = shipped.read_text()
        volume = "  volumes:\n    - name: config\n      configMap:\n        name: sandbox-example-config\n"
        (folder / shipped.name).write_text(text.replace("  volumes:\n", volume))
    (folder / "config.yaml").write_text(CONFIG)
    return templates


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A folder with one template, `configured`, with a ConfigMap and a NetworkPolicy."""
    return write_configured(tmp_path / "templates")
