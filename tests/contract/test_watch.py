"""Every way in which a watch of the informer can fail, and what a read then says."""

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
from tests.contract.conftest import Kubectl
from tests.contract.service import Provisioner, StartProvisioner, create
from tests.contract.views import (
    QUICK_VIEW,
    TamperedKubectl,
    by_hand,
    delete_by_hand,
    fresh,
    ids,
    in_list,
    is_status,
    not_in_list,
    status_of,
    watches,
)
from tests.waiting import until

pytestmark = QUICK_VIEW


@pytest.mark.parametrize("way", ["killed", "ended by the server"])
async def test_a_watch_that_ends_is_started_again_and_misses_nothing(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, template: Template, tmp_path: Path, way: str
) -> None:
    await create(provisioner, "old")
    await fresh(provisioner)
    if way == "killed":
        for pid in watches(tmp_path):
            os.kill(pid, signal.SIGKILL)
    else:
        cluster.end_watches()
    await until(lambda: not provisioner.view.is_fresh)
    # created, and deleted, while no watch runs
    await by_hand(kubectl, template, "new")
    await delete_by_hand(kubectl, "old")
    assert await status_of(provisioner, "new") == 200
    assert await status_of(provisioner, "old") == 404
    assert await ids(provisioner) == {"new"}
    await fresh(provisioner)
    assert await ids(provisioner) == {"new"}


@pytest.mark.parametrize(
    "mode", ["watch-hangs", "watch-ends", "watch-garbage", "watch-strange", "watch-half", "watch-forbidden"]
)
async def test_a_watch_that_is_of_no_use_lets_reads_be_right_within_the_bound(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    mode: str,
) -> None:
    tampered.be(mode)
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="2")
    await create(provisioner, "mine")
    assert await status_of(provisioner, "mine") == 200
    await by_hand(kubectl, template, "theirs")
    assert await status_of(provisioner, "theirs") == 200
    await until(lambda: in_list(provisioner, "theirs"), seconds=8)
    await delete_by_hand(kubectl, "theirs")
    await until(lambda: not_in_list(provisioner, "theirs"), seconds=8)
    assert await status_of(provisioner, "theirs") == 404
    assert await status_of(provisioner, "mine") == 200

    tampered.be("")
    await until(lambda: provisioner.view.is_fresh, seconds=30)


async def test_a_watch_that_does_not_tell_what_a_list_shows_is_started_again(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, kubectl: Kubectl, template: Template
) -> None:
    tampered.be("watch-hangs")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="2")
    await fresh(provisioner)
    before = tampered.calls()["watch"]
    await by_hand(kubectl, template, "theirs")
    await until(lambda: tampered.calls()["watch"] > before, seconds=20)


@pytest.mark.deadlines(watch_telling=10.0)
async def test_a_watch_that_is_long_in_coming_is_not_taken_to_watch(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
) -> None:
    """As where an exec plugin takes seconds for a token. What ends before the watch lists, it never tells."""
    assert (await kubectl("create", "namespace", "deer-flow")).rc == 0
    for sandbox_id in ("gone", "stays"):
        await by_hand(kubectl, template, sandbox_id)
    tampered.be("watch-late")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until(lambda: provisioner.view.sandbox("gone")[0] is not None)
    await until(lambda: provisioner.view.watching == 2)
    assert await status_of(provisioner, "gone") == 200
    await delete_by_hand(kubectl, "gone")
    await until(lambda: is_status(provisioner, "gone", 404))
    assert await ids(provisioner) == {"stays"}
    assert not provisioner.view.is_fresh
    (tmp_path / "go").touch()
    await fresh(provisioner)
    assert tampered.calls()["watch"] == 2, "they were waited for"
    assert await status_of(provisioner, "gone") == 404
    assert await ids(provisioner) == {"stays"}


async def test_a_watch_that_is_silent_because_all_is_gone_is_taken_to_watch(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, kubectl: Kubectl, template: Template, tmp_path: Path
) -> None:
    assert (await kubectl("create", "namespace", "deer-flow")).rc == 0
    await by_hand(kubectl, template, "gone")
    tampered.be("watch-late")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until(lambda: provisioner.view.sandbox("gone")[0] is not None)
    await delete_by_hand(kubectl, "gone")
    (tmp_path / "go").touch()
    await fresh(provisioner)
    assert await ids(provisioner) == set()
    await by_hand(kubectl, template, "new")
    await until(lambda: in_list(provisioner, "new"))
    await fresh(provisioner)


async def test_watches_that_no_longer_tell_what_is_gone_are_started_again(
    start_provisioner: StartProvisioner, kubectl: Kubectl, template: Template, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(LIVE_VIEW_MAX_AGE="4")
    for sandbox_id in ("a", "b"):
        await by_hand(kubectl, template, sandbox_id)
    await fresh(provisioner)
    await until(lambda: in_list(provisioner, "b"))
    stopped = watches(tmp_path)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        await delete_by_hand(kubectl, "a")
        await until(lambda: not set(stopped) & set(watches(tmp_path)), seconds=20)
    finally:
        for pid in set(stopped) & set(watches(tmp_path)):
            os.kill(pid, signal.SIGCONT)
    await fresh(provisioner)
    assert await ids(provisioner) == {"b"}


async def test_lists_in_the_place_of_events_and_a_line_of_2_mb_are_read(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, template: Template, tmp_path: Path
) -> None:
    """Above 500 objects the first events are whole lists (kubectl.md 13)."""
    pods = []
    for number in range(3):
        pod, _ = build(Sandbox(f"s{number}", "t", "u"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z")
        pod["metadata"] |= {"uid": f"u{number}", "resourceVersion": "5"}
        pod["metadata"]["annotations"]["note"] = "x" * 700_000
        pods.append(pod)
    line = json.dumps({"type": "ADDED", "object": {"kind": "PodList", "apiVersion": "v1", "items": pods}})
    assert len(line) > 2_000_000
    (tmp_path / "said").write_text(line + "\n")
    tampered.be("watch-lists")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await until(lambda: provisioner.view.sandbox("s2")[0] is not None)
