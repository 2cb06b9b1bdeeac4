"""Fixtures of the client tests: kubectl with a fake cluster that gives recorded responses."""

from __future__ import annotations

import pytest

from sandboxes.kubectl.client import Kubectl
from tests.fakes import FakeCluster


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def kubectl(cluster: FakeCluster) -> Kubectl:
    return Kubectl(cluster, max_processes=2, max_waiting=1)
