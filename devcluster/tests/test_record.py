"""The record, played again: the same calls of the same kubectl, against devcluster, end the same way.

A case is its recorded arguments and input, and the state that the recorded cluster was in. What differs from one
cluster to another (uids, times, ports, addresses) is levelled on both sides; all else must be equal.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.tests.levels import documents, level, printed
from devcluster.tests.stages import CASES, IN_REAL_TIME, SPECIALS, UNAUTHORIZED, Special, Stage, State, staged
from tests.kubectl import SPEED, Kubectl
from tests.record import case


@pytest.mark.parametrize(("state", "name"), [(state, name) for state, names in CASES.items() for name in names])
async def test_a_recorded_call_ends_as_it_did(state: State, name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with staged(tmp_path, speed=1 if state in IN_REAL_TIME else SPEED) as stage:
        await state(stage)
        result = await stage.play(recorded)
    assert level(result.stderr) == level(recorded.stderr)
    assert result.rc == recorded.returncode
    assert level(printed(result)) == level(documents(recorded.stdout))


@pytest.mark.parametrize("special", SPECIALS, ids=lambda special: special.case)
async def test_a_recorded_call_in_another_cluster(special: Special, tmp_path: Path) -> None:
    recorded = case(special.case)
    options = {"speed": SPEED, **special.options}
    async with staged(tmp_path, **options) as stage:
        if "service_account_after" in options:
            assert (await stage.kubectl("create", "namespace", special.namespace)).rc == 0
        else:
            await stage.namespace(special.namespace)
        result = await stage.play(recorded)
    assert level(result.stderr) == level(recorded.stderr)
    assert (result.rc, printed(result)) == (recorded.returncode, recorded.stdout)


@pytest.mark.parametrize("name", UNAUTHORIZED)
async def test_a_recorded_call_with_a_token_that_is_not_ours(name: str, cluster: Cluster, kubectl: Kubectl) -> None:
    recorded = case(name)
    warmed = await kubectl("get", "pods")  # the record was made with discovery in the cache
    assert warmed.rc == 0
    text = cluster.kubeconfig.read_text(encoding="utf-8")
    cluster.kubeconfig.write_text(text.replace(cluster.token, "not-ours"), encoding="utf-8")
    result = await Stage(cluster, kubectl).play(recorded)
    assert result.stderr == recorded.stderr
    assert (result.rc, printed(result)) == (recorded.returncode, recorded.stdout)
