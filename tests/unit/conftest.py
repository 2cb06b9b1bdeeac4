"""Fixtures of the unit tests: kubectl with a fake cluster, an environment without kubectl, a validator of creates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.kubectl.client import Kubectl
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template
from tests.fakes import FakeCluster
from tests.unit.validator import Validator


@pytest.fixture
def cluster() -> FakeCluster:
    """Return a fake cluster that gives recorded responses."""
    return FakeCluster()


@pytest.fixture
def kubectl(cluster: FakeCluster) -> Kubectl:
    return Kubectl(cluster, max_processes=2, max_waiting=1)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose PATH has no kubectl."""
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


@pytest.fixture
def validator(make_settings: Callable[..., Settings], template: Template) -> Validator:
    return Validator(make_settings, template)
