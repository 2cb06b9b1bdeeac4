"""A context of the kubeconfig other than the current one; with the real kubectl, and no cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.settings import Settings
from tests.unit.startup import kubeconfig

MakeSettings = Callable[..., Settings]

TWO: dict[str, Any] = {
    "clusters": [
        {"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}},
        {"name": "d", "cluster": {"server": "https://10.0.0.2:6443"}},
        {"name": "e", "cluster": {}},
    ],
    "contexts": [
        {"name": "here", "context": {"cluster": "c", "user": "u"}},
        {"name": "there", "context": {"cluster": "d", "user": "u"}},
        {"name": "nobody", "context": {"cluster": "d", "user": "none"}},
        {"name": "nowhere", "context": {"cluster": "e", "user": "u"}},
    ],
}


async def test_a_context_is_named_in_every_call_and_decides_the_server(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", **TWO)
    settings = make_settings(KUBECONFIG_PATH=path, K8S_API_SERVER="https://elsewhere")
    there = await connect(settings, environ, tmp_path, context="there")
    assert "--context=there" in there.flags
    assert "--tls-server-name=10.0.0.2" in there.flags
    here = await connect(settings, environ, tmp_path)
    assert [flag for flag in here.flags if flag.startswith("--context")] == []
    assert "--tls-server-name=10.0.0.1" in here.flags


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("prod", "Kubeconfig {} has no usable context prod."),
        ("nobody", "Kubeconfig {} has no user with credentials for its context nobody."),
        ("nowhere", "Kubeconfig {} names no API server for its context nowhere."),
    ],
)
async def test_an_unusable_context_stops_the_start_with_file_and_name(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, context: str, message: str
) -> None:
    path = kubeconfig(tmp_path / "config", **TWO)
    with pytest.raises(StartupError) as caught:
        await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path, context=context)
    assert str(caught.value) == message.format(path)
