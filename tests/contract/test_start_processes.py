"""The kubectl processes that a start needs: those of further clusters are what a start with many takes."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.audit import CLUSTERS
from tests.contract.fleet import NAMES, StartReplica
from tests.contract.test_fleet_views import all_fresh
from tests.contract.views import TamperedKubectl
from tests.waiting import until

pytestmark = [
    pytest.mark.deadlines(clusters_poll=3600.0, ready_believed=3600.0),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.starts_in_full,
    pytest.mark.role(CLUSTERS),
]
KINDS = ("version", "config view", "proxy", "get namespace", "--dry-run=server", "--dry-run=none", "get -o json")


def kinds(lines: list[str]) -> Counter[str]:
    """Count the calls without those of the live views."""
    named = (next((one for one in KINDS if one in line), "") for line in lines if "--raw" not in line)
    return Counter(named)


async def test_a_start_asks_kubectl_once_and_each_cluster_few_things(
    start_replica: StartReplica, tampered: TamperedKubectl
) -> None:
    await start_replica()  # makes the records
    service = await start_replica(KUBECTL=str(tampered.path))
    await all_fresh(service)
    each = len(NAMES)
    # A dry run of all templates, and one of that which needs a RuntimeClass; the record; four processes that wait.
    expected = Counter(
        {
            "version": 1,
            "config view": each,
            "proxy": each,
            "get namespace": each,
            "--dry-run=server": 2 * each,
            "--dry-run=none": 3 * each,
            "get -o json": 2 * each,
        }
    )
    await until(lambda: kinds(tampered.lines()) == expected)
