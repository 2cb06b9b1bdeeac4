"""Fixtures of the contract tests: devcluster as the API server, and a real kubectl."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from sandboxes.deadlines import Deadlines
from tests.audit import ASKED, DEFAULTS, HAS_ALL, Asked
from tests.contract.chaos import service
from tests.contract.configured import templates
from tests.contract.fleet import clusters, path, start_replica, west
from tests.contract.fleet_chaos import start_chaos
from tests.contract.gateways import keys, session, start_gateway
from tests.contract.processes import service_url
from tests.contract.service import fast_cluster, provisioner, start_provisioner, without_reaper
from tests.contract.views import tampered
from tests.kubectl import cluster, kubectl
from tests.network import unreachable
from tests.waiting import until

__all__ = [
    "cluster", "clusters", "fast_cluster", "keys", "kubectl", "path", "provisioner", "service", "service_url",
    "session", "start_chaos", "start_gateway", "start_provisioner", "start_replica", "tampered", "templates",
    "unreachable", "until", "west", "without_reaper",
]  # fmt: skip


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Record whether all contract tests will run: see tests/audit.py."""
    here = Path(__file__).parent
    before = [item for item in items if here in item.path.parents]
    yield
    is_all = {item.path for item in before} == set(here.glob("test_*.py"))
    config.stash[HAS_ALL] = is_all and set(before) <= set(items)


# Tests that are not about a timeout have longer deadlines than production, for busy machines.
PATIENT = Deadlines(
    body=60.0, create=100.0, delete=90.0, read=60.0, diagnosis=50.0, undo=30.0, others_service=5.0,
    url_unreached=20.0, url_connect=10.0, url_answer=10.0, ready=30.0, preflight=60.0, kubectl_call=90.0,
    kubectl_local=60.0, drain=5.0, batch=20.0, batch_limit=60.0, batch_patience=60.0, batch_spare=5.0,
)  # fmt: skip


@pytest.fixture
def deadlines(request: pytest.FixtureRequest) -> Deadlines:
    """Return the deadlines of services that a test starts: PATIENT, overridden by its `deadlines` marks."""
    marks = [marker.kwargs for marker in request.node.iter_markers("deadlines")]
    return dataclasses.replace(PATIENT, **{name: value for mark in reversed(marks) for name, value in mark.items()})


@pytest.fixture(scope="session")
def audited(pytestconfig: pytest.Config) -> Iterator[Asked]:
    """Return the requests of all services to the clusters of all tests."""
    asked = pytestconfig.stash.setdefault(ASKED, Asked())
    with asked.listening():
        yield asked


@pytest.fixture(autouse=True)
def within_the_role(request: pytest.FixtureRequest, audited: Asked) -> Iterator[None]:
    """Fail a test in which a service uses a right that its Role does not grant."""
    marker = request.node.get_closest_marker("role")
    with audited.within(marker.args[0] if marker else DEFAULTS):
        yield
