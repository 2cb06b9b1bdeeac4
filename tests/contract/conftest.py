"""What the contract tests share: a stand-in cluster, and a real kubectl that talks to it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.audit import ASKED, DEFAULTS, HAS_ALL, Asked
from tests.contract.configured import templates
from tests.contract.service import fast_cluster, provisioner, start_provisioner, without_reaper
from tests.contract.views import tampered
from tests.kubectl import cluster, kubectl
from tests.waiting import until

__all__ = [
    "cluster", "fast_cluster", "kubectl", "provisioner", "start_provisioner", "tampered", "templates", "until",
    "without_reaper",
]  # fmt: skip


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Note whether all contract tests are going to run: see tests/audit.py."""
    here = Path(__file__).parent
    before = [item for item in items if here in item.path.parents]
    yield
    is_all = {item.path for item in before} == set(here.glob("test_*.py"))
    config.stash[HAS_ALL] = is_all and set(before) <= set(items)


@pytest.fixture(scope="session")
def audited(pytestconfig: pytest.Config) -> Iterator[Asked]:
    """Return what services ask of the clusters of all tests."""
    asked = pytestconfig.stash.setdefault(ASKED, Asked())
    with asked.listening():
        yield asked


@pytest.fixture(autouse=True)
def within_the_role(request: pytest.FixtureRequest, audited: Asked) -> Iterator[None]:
    """Fail a test in which a service asks for more than the Role that it would be deployed with."""
    marker = request.node.get_closest_marker("role")
    with audited.within(marker.args[0] if marker else DEFAULTS):
        yield
