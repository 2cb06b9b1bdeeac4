"""What tests of every room share."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.settings import Settings
from sandboxes.templates import Template, load_template

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables of whoever runs the tests out of them."""
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)


@pytest.fixture
def make_settings(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Callable[..., Settings]:  # noqa: ARG001
    """Return what reads Settings from an environment with just the given variables."""

    def make(**variables: Any) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return Settings.load()

    return make


@functools.cache
def _shipped_template() -> Template:
    return load_template(ROOT / "manifests" / "sandbox")


@pytest.fixture
def template() -> Template:
    """Return the template that is shipped, the test's own to change."""
    return copy.deepcopy(_shipped_template())
