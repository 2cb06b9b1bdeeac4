"""Failures of the informer's watches, and the reads that follow."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.processes import kill_each
from tests.contract.service import StartProvisioner, create
from tests.contract.views import (
    QUICK_VIEW,
    TamperedKubectl,
    create_manually,
    delete_manually,
    end_watches,
    ids,
    in_list,
    is_status,
    not_in_list,
    status_of,
    until_fresh,
    watches,
)
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = QUICK_VIEW


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "ended by the server", "cut off"])
async def test_a_watch_that_ends_resumes_without_a_list(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    cluster: Cluster,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
    way: str,
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner, "old")
    await until_fresh(provisioner)
    await until(lambda: cluster.open_watches() == 2)
    lists = tampered.calls()["list"]
    tampered.set_mode("watch-late")  # applies to the next watch
    if way == "killed":
        kill_each(watches(tmp_path))
    elif way == "cut off":
        cluster.faults.cut_watches()
    else:
        await end_watches(cluster)
    await until(lambda: not provisioner.view.is_fresh)
    # created and deleted while no watch runs
    await create_manually(kubectl, template, "new")
    await delete_manually(kubectl, "old")
    assert await status_of(provisioner, "new") == 200
    assert await status_of(provisioner, "old") == 404
    assert tampered.calls()["list"] == lists
    (tmp_path / "go").touch()
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"new"}
    assert tampered.calls()["list"] == lists


async def test_an_expired_resource_version_causes_one_list_per_resource(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    cluster: Cluster,
    kubectl: Kubectl,
    template: Template,
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner, "old")
    await until_fresh(provisioner)
    await until(lambda: cluster.open_watches() == 2)
    lists = tampered.calls()["list"]
    cluster.faults.expire_watches()
    await create_manually(kubectl, template, "new")
    await delete_manually(kubectl, "old")
    await until(lambda: tampered.calls()["list"] >= lists + 2)
    await until_fresh(provisioner)
    await until(lambda: in_list(provisioner, "new"))
    await until(lambda: not_in_list(provisioner, "old"))
    assert tampered.calls()["list"] == lists + 2


@pytest.mark.parametrize(
    "mode",
    [
        "watch-hangs",
        *(
            pytest.param(mode, marks=pytest.mark.slow)
            for mode in ("watch-ends", "watch-garbage", "watch-half", "watch-forbidden")
        ),
    ],
)
async def test_reads_are_correct_within_live_view_max_age_without_a_working_watch(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    mode: str,
) -> None:
    tampered.set_mode(mode)
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="2")
    await create(provisioner, "mine")
    assert await status_of(provisioner, "mine") == 200
    await create_manually(kubectl, template, "theirs")
    assert await status_of(provisioner, "theirs") == 200
    await until(lambda: in_list(provisioner, "theirs"), seconds=30)
    await delete_manually(kubectl, "theirs")
    await until(lambda: not_in_list(provisioner, "theirs"), seconds=30)
    assert await status_of(provisioner, "theirs") == 404
    assert await status_of(provisioner, "mine") == 200

    tampered.set_mode("")
    await until(lambda: provisioner.view.is_fresh)


async def test_a_late_watch_reports_earlier_deletions(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
) -> None:
    """A credential plugin may need seconds for a token."""
    assert (await kubectl("create", "namespace", "deer-flow")).rc == 0
    for sandbox_id in ("gone", "stays"):
        await create_manually(kubectl, template, sandbox_id)
    tampered.set_mode("watch-late")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until(lambda: provisioner.view.sandbox("gone")[0] is not None)
    await delete_manually(kubectl, "gone")
    (tmp_path / "go").touch()
    await until(lambda: is_status(provisioner, "gone", 404))
    await until(lambda: provisioner.view.sandbox("gone") == (None, None))
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"stays"}


@pytest.mark.slow
async def test_a_silent_watch_is_restarted_without_a_list(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="4")
    for sandbox_id in ("a", "b"):
        await create_manually(kubectl, template, sandbox_id)
    await until(lambda: in_list(provisioner, "b"))
    await until_fresh(provisioner)
    lists = tampered.calls()["list"]
    stopped = watches(tmp_path)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    await delete_manually(kubectl, "a")
    await until(lambda: not set(stopped) & set(watches(tmp_path)))
    await until(lambda: provisioner.view.sandbox("a") == (None, None))
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"b"}
    assert tampered.calls()["list"] == lists
    assert not [record for record in caplog.records if record.name.startswith("sandboxes.cluster.reflector")]


async def test_an_event_of_2_mb_is_read(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, template: Template, tmp_path: Path
) -> None:
    pod, _ = build(Sandbox("big", "t", "u"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z")
    pod["metadata"] |= {"uid": "u1", "resourceVersion": "999999999"}
    pod["metadata"]["annotations"]["note"] = "x" * 2_000_000
    (tmp_path / "said").write_text(json.dumps({"type": "ADDED", "object": pod}) + "\n")
    tampered.set_mode("watch-says")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until(lambda: provisioner.view.sandbox("big")[0] is not None)
