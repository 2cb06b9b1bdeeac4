"""Replays the record: the same kubectl calls against devcluster must have the recorded results.

A case has recorded arguments, an input, and a state of the cluster. Values that differ between clusters (uids, times,
ports, addresses) are normalized on both sides; everything else must be equal.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.tests.normalize import normalize, parse_documents, parsed_stdout
from devcluster.tests.replay import (
    CASES,
    REAL_TIME,
    SPECIAL_CASES,
    UNAUTHORIZED,
    Replay,
    SpecialCase,
    State,
    replay_cluster,
)
from tests.kubectl import SPEED, Kubectl
from tests.record import case


@pytest.mark.parametrize(("state", "name"), [(state, name) for state, names in CASES.items() for name in names])
async def test_a_recorded_call_has_the_recorded_result(state: State, name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with replay_cluster(tmp_path, speed=1 if state in REAL_TIME else SPEED) as replay:
        await state(replay)
        result = await replay.run(recorded)
    assert normalize(result.stderr) == normalize(recorded.stderr)
    assert result.rc == recorded.returncode
    assert normalize(parsed_stdout(result)) == normalize(parse_documents(recorded.stdout))


@pytest.mark.parametrize("special", SPECIAL_CASES, ids=lambda special: special.case)
async def test_a_recorded_call_in_a_special_cluster_has_the_recorded_result(
    special: SpecialCase, tmp_path: Path
) -> None:
    recorded = case(special.case)
    options = {"speed": SPEED, **special.options}
    async with replay_cluster(tmp_path, **options) as replay:
        if "service_account_after" in options:
            assert (await replay.kubectl("create", "namespace", special.namespace)).rc == 0
        else:
            await replay.make_namespace(special.namespace)
        result = await replay.run(recorded)
    assert normalize(result.stderr) == normalize(recorded.stderr)
    assert (result.rc, parsed_stdout(result)) == (recorded.returncode, recorded.stdout)


@pytest.mark.parametrize("name", UNAUTHORIZED)
async def test_a_recorded_call_with_a_wrong_token_has_the_recorded_result(
    name: str, cluster: Cluster, kubectl: Kubectl
) -> None:
    recorded = case(name)
    warmed = await kubectl("get", "pods")  # the record was made with discovery in the cache
    assert warmed.rc == 0
    text = cluster.kubeconfig.read_text(encoding="utf-8")
    cluster.kubeconfig.write_text(text.replace(cluster.token, "not-ours"), encoding="utf-8")
    result = await Replay(cluster, kubectl).run(recorded)
    assert result.stderr == recorded.stderr
    assert (result.rc, parsed_stdout(result)) == (recorded.returncode, recorded.stdout)
