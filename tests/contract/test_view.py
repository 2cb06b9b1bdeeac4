"""The live view and its honesty: every way in which a watch can fail, and what a read then says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes import lifecycle, view, watch
from sandboxes.manifests import Sandbox, build
from sandboxes.settings import Settings
from sandboxes.templates import Template
from tests.contract.conftest import Kubectl
from tests.contract.processes import processes_with
from tests.contract.service import KUBECTL, URL, Provisioner, StartProvisioner, create
from tests.waiting import until


class TamperedKubectl:
    """The real kubectl, but for what the file `mode` beside it says; notes every call in `calls`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tampered-kubectl"
        self._mode = directory / "mode"
        self._calls = directory / "calls"
        self._mode.write_text("")
        self._calls.write_text("")
        self.path.write_text(
            "#!/bin/sh\n"
            f"mode=$(cat {self._mode})\n"
            f'echo "$*" >> {self._calls}\n'
            'case "$mode $*" in\n'
            f"  watch-lists*--watch*) cat {directory}/said; exec sleep 600 ;;\n"
            "  watch-hangs*--watch*) exec sleep 600 ;;\n"
            f"  watch-late*--watch*) while [ ! -e {directory}/go ]; do sleep 0.05; done ;;\n"
            "  watch-ends*--watch*) exit 0 ;;\n"
            "  watch-garbage*--watch*) echo 'no JSON at all'; exec sleep 600 ;;\n"
            '  watch-half*--watch*) printf \'{"type": "ADDED", "object": {"ki\'; exit 0 ;;\n'
            '  watch-forbidden*--watch*) echo \'Error from server (Forbidden): pods is forbidden: User "u" cannot list '
            'resource "pods" in API group "" in the namespace "deer-flow"\' >&2; exit 1 ;;\n'
            '  list-fails*pods,services*) echo \'{"apiVersion":"v1","items":[],"kind":"List"}\';'
            " echo 'Error from server (InternalError): no' >&2; exit 1 ;;\n"
            f'  list-lags*pods,services*) {KUBECTL} "$@" > {directory}/list.$$; echo "$*" >> {directory}/lagging;'
            f" sleep 1; exec cat {directory}/list.$$ ;;\n"
            "esac\n"
            f'exec {KUBECTL} "$@"\n'
        )
        self.path.chmod(0o755)

    def be(self, mode: str) -> None:
        """Behave so from the next start on."""
        self._mode.write_text(mode)

    def calls(self) -> Counter[str]:
        """Count the calls by kind."""
        lines = self._calls.read_text().splitlines()
        return Counter(
            "watch" if "--watch" in line else "list" if "pods,services" in line else "other" for line in lines
        )


@pytest.fixture
def tampered(tmp_path: Path) -> TamperedKubectl:
    return TamperedKubectl(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pauses be short; what is tested is what happens, not how long it takes."""
    monkeypatch.setattr(watch, "PAUSES", (0.05, 0.1))
    monkeypatch.setattr(watch, "FIRST_LIST_SECONDS", 0.5)
    monkeypatch.setattr(view, "TELLING_SECONDS", 0.5)


async def fresh(provisioner: Provisioner) -> None:
    """Wait until reads start no process."""
    await until(lambda: provisioner.view.is_fresh, seconds=30)


async def status_of(provisioner: Provisioner, sandbox_id: str = "a") -> int:
    return (await provisioner.get(f"{URL}/{sandbox_id}")).status


async def is_status(provisioner: Provisioner, sandbox_id: str, status: int) -> bool:
    return await status_of(provisioner, sandbox_id) == status


async def ids(provisioner: Provisioner) -> set[str]:
    answer = await (await provisioner.get(URL)).json()
    return {sandbox["sandbox_id"] for sandbox in answer["sandboxes"]}


def watches(tmp_path: Path) -> list[int]:
    found = []
    for pid in processes_with(str(tmp_path)):
        try:
            if b"--watch" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:  # it has ended
            continue
    return found


async def by_hand(kubectl: Kubectl, template: Template, sandbox_id: str) -> None:
    """Make a sandbox behind the service's back."""
    objects = build(
        Sandbox(sandbox_id, sandbox_id, "default"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z"
    )
    result = await kubectl.apply(*objects)
    assert result.rc == 0, result.stderr


async def delete_by_hand(kubectl: Kubectl, sandbox_id: str) -> None:
    result = await kubectl(
        "delete", f"pod/sandbox-{sandbox_id}", f"service/sandbox-{sandbox_id}-svc", "-n", "deer-flow", "--wait=false"
    )
    assert result.rc == 0, result.stderr


async def test_reads_start_no_process(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await create(provisioner)
    await fresh(provisioner)
    await until(lambda: len(processes_with(str(tmp_path))) >= 4 + 2)
    before = tampered.calls()
    for _ in range(20):
        assert await status_of(provisioner) == 200
        assert await ids(provisioner) == {"a"}
    after = tampered.calls()
    assert after["other"] == before["other"]
    assert after["list"] - before["list"] <= 1  # a resync may fall into it


async def test_what_it_wrote_its_next_read_sees(provisioner: Provisioner) -> None:
    await fresh(provisioner)
    for number in range(5):
        await create(provisioner, f"s{number}")
        assert await status_of(provisioner, f"s{number}") == 200
        assert f"s{number}" in await ids(provisioner)
        assert (await provisioner.delete(f"{URL}/s{number}")).status == 200
        assert await status_of(provisioner, f"s{number}") == 404
        assert f"s{number}" not in await ids(provisioner)


async def test_deleted_unknown_then_created_it_is_listed_at_once(provisioner: Provisioner) -> None:
    await fresh(provisioner)
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await create(provisioner)
    assert await ids(provisioner) == {"a"}
    assert await status_of(provisioner) == 200


async def test_a_delete_that_was_not_answered_leaves_no_answer_from_the_view(
    provisioner: Provisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "DELETE_SECONDS", 1.0)
    await create(provisioner)
    await fresh(provisioner)
    cluster.faults.slow(2.0, verb="delete", resource="pods")
    assert (await provisioner.delete(f"{URL}/a")).status == 504
    answer = await provisioner.get(f"{URL}/a")
    assert (answer.status == 200) == (cluster.get("Service", "deer-flow", "sandbox-a-svc") is not None)


async def test_changes_behind_its_back_are_seen(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    await fresh(provisioner)
    await by_hand(kubectl, template, "a")
    await until(lambda: in_list(provisioner, "a"))

    async def running() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json()).get("status") == "Running")

    await until(running)
    await delete_by_hand(kubectl, "a")
    await until(lambda: not_in_list(provisioner, "a"))
    assert await status_of(provisioner) == 404
    assert cluster.objects("Service") == []


async def in_list(provisioner: Provisioner, sandbox_id: str) -> bool:
    return sandbox_id in await ids(provisioner)


async def not_in_list(provisioner: Provisioner, sandbox_id: str) -> bool:
    return sandbox_id not in await ids(provisioner)


async def test_another_replicas_sandbox_is_found_before_404_is_said(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    """Even while the watches say nothing of it."""
    tampered.be("watch-hangs")
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await fresh(provisioner)
    other = await start_provisioner(LIVE_VIEW="false")
    await create(other)
    assert await status_of(provisioner) == 200


async def test_a_storm_of_gets_for_unknown_ids_is_no_storm_of_processes(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path))
    await fresh(provisioner)
    before = tampered.calls()["other"]
    statuses = await asyncio.gather(*(status_of(provisioner, f"none-{n}") for n in range(200)))
    assert set(statuses) == {404}
    assert tampered.calls()["other"] - before < 40


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


async def test_a_watch_that_is_long_in_coming_is_not_taken_to_watch(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where an exec plugin takes seconds for a token. What ends before the watch lists, it never tells."""
    monkeypatch.setattr(view, "TELLING_SECONDS", 10.0)  # it is late, and not yet dead
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


async def test_a_list_that_fails_with_an_empty_list_on_stdout_empties_nothing(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="2")
    await create(provisioner)
    await fresh(provisioner)
    tampered.be("list-fails")
    before = tampered.calls()["list"]
    await until(lambda: tampered.calls()["list"] > before, seconds=20)
    assert provisioner.view.sandbox("a")[0] is not None
    await until(lambda: not provisioner.view.is_fresh, seconds=20)
    assert await status_of(provisioner) == 200  # live
    assert (await provisioner.get(URL)).status == 503
    tampered.be("")
    await fresh(provisioner)
    assert await ids(provisioner) == {"a"}


async def test_a_list_that_comes_late_brings_nothing_back(
    start_provisioner: StartProvisioner, cluster: Cluster, tampered: TamperedKubectl, tmp_path: Path
) -> None:
    """It began before the delete, and ends after the watch has told that all is gone."""
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="4")
    await create(provisioner)
    await fresh(provisioner)
    tampered.be("list-lags")
    await until((tmp_path / "lagging").exists, seconds=20)
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await until(lambda: cluster.objects("Pod") == [])
    lists = tampered.calls()["list"]
    while tampered.calls()["list"] < lists + 1:
        assert await ids(provisioner) == set()  # a get would confirm a miss, and mend the view
        await asyncio.sleep(0.05)
    assert await status_of(provisioner) == 404


async def test_the_api_server_restarted(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    await create(provisioner)
    await fresh(provisioner)
    await cluster.faults.restart(forget=True)
    await by_hand(kubectl, template, "new")
    await until(lambda: in_list(provisioner, "new"), seconds=30)
    await fresh(provisioner)
    assert await ids(provisioner) == {"a", "new"}


async def test_the_cluster_away_and_back(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    await fresh(provisioner)
    cluster.faults.refuse()
    await until(lambda: not provisioner.view.is_fresh)
    assert await status_of(provisioner) == 503
    cluster.faults.clear()
    await fresh(provisioner)
    assert await status_of(provisioner) == 200


async def fill(cluster: Cluster, template: Template, count: int) -> None:
    """Make many sandboxes, straight through the API."""
    settings = Settings.load()
    tls = ssl.create_default_context(cafile=cluster.ca_file)
    headers = {"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/apply-patch+yaml"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def put(obj: dict[str, Any], resource: str) -> None:
            path = f"/api/v1/namespaces/{settings.k8s_namespace}/{resource}/{obj['metadata']['name']}"
            async with session.patch(
                f"{cluster.url}{path}?fieldManager=provisioner&force=true", data=json.dumps(obj), ssl=tls
            ) as response:
                assert response.status == 201, await response.text()

        for number in range(count):
            pod, service = build(Sandbox(f"s{number}", "t", "u"), template, settings, applied_at="2026-01-01T00:00:00Z")
            await put(pod, "pods")
            await put(service, "services")


async def test_more_than_1200_objects_at_the_start(
    start_provisioner: StartProvisioner, cluster: Cluster, template: Template, kubectl: Kubectl
) -> None:
    first = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await create(first, "one")
    await fill(cluster, template, 620)
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await fresh(provisioner)
    assert len(await ids(provisioner)) == 621
    await delete_by_hand(kubectl, "s0")
    await until(lambda: not_in_list(provisioner, "s0"))
    assert len(await ids(provisioner)) == 620
