"""What the contract tests share: a stand-in cluster, and a real kubectl that talks to it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.audit import ASKED, DEFAULTS, Asked
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
    """Have what looks back on all contract tests come last, and only where all of them run."""
    here = Path(__file__).parent
    before = sum(here in item.path.parents for item in items)
    yield
    those = [item for item in items if here in item.path.parents]
    is_whole = len(those) == before and {item.path for item in those} == set(here.glob("test_*.py"))
    last = [item for item in those if item.get_closest_marker("looks_back")]
    items[:] = [item for item in items if item not in last]
    if is_whole:
        items.extend(last)
    elif last:
        config.hook.pytest_deselected(items=last)


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
