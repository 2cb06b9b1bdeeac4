"""A kuberc (kubectl 1.34 and later): a file in HOME with default flags for kubectl's commands."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_kuberc(home: Path, **defaults: dict[str, str]) -> None:
    """Write `home`/.kube/kuberc; `defaults` has the default flags by command, such as apply={"dry-run": "server"}."""
    preference = {
        "apiVersion": "kubectl.config.k8s.io/v1beta1",
        "kind": "Preference",
        "defaults": [
            {"command": command, "options": [{"name": flag, "default": value} for flag, value in flags.items()]}
            for command, flags in defaults.items()
        ],
    }
    path = home / ".kube" / "kuberc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(preference), encoding="utf-8")
