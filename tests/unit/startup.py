"""Kubeconfigs, scripts in place of kubectl, and errors of the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.settings import Settings
from tests.marker import MARKER


def kubeconfig(path: Path, **changes: Any) -> Path:
    """Write a kubeconfig with these changes to its top-level fields, and return its path."""
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
        "users": [{"name": "u", "user": {"token": MARKER}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({**config, **changes}))
    return path


async def startup_error(settings: Settings, environ: dict[str, str], directory: Path) -> str:
    """Return the message of the StartupError of `connect`."""
    with pytest.raises(StartupError) as caught:
        await connect(settings, environ, directory, service_account=directory / "none")
    return str(caught.value)


def write_script(path: Path, text: str) -> Path:
    """Write an executable script, and return its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
