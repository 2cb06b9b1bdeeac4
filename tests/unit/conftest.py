"""What tests of kubectl's client have in common: kubectl over a cluster that answers what was recorded."""

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
