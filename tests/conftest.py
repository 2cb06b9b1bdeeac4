"""Fixtures and hooks that all tests share."""

from __future__ import annotations

import copy
import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as examples

from sandboxes.deadlines import Deadlines
from sandboxes.environment import FALLBACKS, LARK_PREFIXES
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template, load_template
from tests.audit import pytest_sessionfinish, pytest_testnodedown
from tests.marker import (
    no_secrets_of_other_tests,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
)

__all__ = [
    "no_secrets_of_other_tests", "pytest_configure", "pytest_runtest_makereport", "pytest_runtest_protocol",
    "pytest_sessionfinish", "pytest_testnodedown",
]  # fmt: skip

ROOT = Path(__file__).parent.parent
# The number of generated examples: `all` is hypothesis' default, which CI runs.
examples.register_profile("all", deadline=None, print_blob=True)
examples.register_profile("few", deadline=None, print_blob=True, max_examples=20)
examples.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


def few(number: int) -> int:
    """Return how many of so many generated schedules to try: as large a part as of hypothesis' examples."""
    return number * examples().max_examples // 100


VARIABLES = {field.upper() for field in Settings.model_fields} | set(FALLBACKS.values())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with made-up input more time: when one fails, hypothesis reduces the input for up to 300 s.

    A timeout meanwhile would hide the failure behind an error about hypothesis itself.
    """
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


def pytest_collection_finish() -> None:
    """Exclude modules and tests, which live until the end, from garbage collection."""
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the caller's environment."""
    for name in os.environ:
        if name in VARIABLES or name.startswith(LARK_PREFIXES):
            monkeypatch.delenv(name)


@functools.cache
def _load_settings(_environment: frozenset[tuple[str, str]]) -> Settings:
    """Load the Settings from the environment; cached by the variables that matter, since Settings are immutable."""
    return Settings.load()


@pytest.fixture
def make_settings(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Callable[..., Settings]:  # noqa: ARG001
    """Return a function that loads Settings from an environment with only the given variables."""

    def make(**variables: Any) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return _load_settings(frozenset(item for item in os.environ.items() if item[0] in VARIABLES))

    return make


@pytest.fixture
def deadlines(request: pytest.FixtureRequest) -> Deadlines:
    """Return the Deadlines of the services that a test starts: `@pytest.mark.deadlines(read=0.1)`, in seconds."""
    marks = [marker.kwargs for marker in request.node.iter_markers("deadlines")]
    return Deadlines(**{name: value for mark in reversed(marks) for name, value in mark.items()})


@functools.cache
def _shipped_template() -> Template:
    return load_template(ROOT / "manifests" / "sandbox")


@pytest.fixture
def template() -> Template:
    """Return a copy of the shipped template, which the test may modify."""
    return copy.deepcopy(_shipped_template())
