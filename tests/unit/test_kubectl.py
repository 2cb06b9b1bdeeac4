"""kubectl behind its seam: arguments, limits, deadlines, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from sandboxes import errors
from sandboxes.kubectl import Kubectl, KubectlRunner
from tests.fakes import FakeCluster
from tests.record import case

REFERENCE = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sandbox-a", "namespace": "deer-flow"}}


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def kubectl(cluster: FakeCluster) -> Kubectl:
    return Kubectl(cluster, max_processes=2, max_waiting=1)


def test_the_arguments_are_those_of_the_record() -> None:
    """The calls whose answers are recorded are the calls that are made."""
    recorded = {name: case(name).argv[1:] for name in ("apply-create", "get-stdin", "delete-missing-ignored")}
    assert recorded == {
        "apply-create": (
            "apply", "--server-side", "--force-conflicts", "--field-manager=provisioner", "--validate=ignore",
            "-o", "json", "-f", "-",
        ),
        "get-stdin": ("get", "--ignore-not-found", "-o", "json", "-f", "-"),
        "delete-missing-ignored": ("delete", "--wait=false", "--ignore-not-found", "-o", "name", "-f", "-"),
    }  # fmt: skip


async def test_apply_get_and_delete_are_called_as_recorded(cluster: FakeCluster, kubectl: Kubectl) -> None:
    await kubectl.apply([{**REFERENCE, "spec": {"containers": []}}])
    await kubectl.get([REFERENCE])
    await kubectl.delete([REFERENCE])
    names = ("apply-create", "get-stdin", "delete-missing-ignored")
    assert cluster.calls == [case(name).argv[1:] for name in names]


@pytest.mark.parametrize(("stdout", "count"), [(b"", 0), (b"\n", 0), (b'{"kind": "List", "items": []}', 0)])
async def test_an_answer_of_nothing_is_no_object(
    cluster: FakeCluster, kubectl: Kubectl, stdout: bytes, count: int
) -> None:
    cluster.print_next("get", stdout)
    assert len(await kubectl.get([REFERENCE])) == count


async def test_an_answer_may_be_one_object(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.print_next("get", b'{"kind": "Pod"}')
    assert await kubectl.get([REFERENCE]) == [{"kind": "Pod"}]


@pytest.mark.parametrize(
    "stdout", [b"garbage", b"[]", b"{}", b'{"kind": "List"}', b'{"kind": "List", "items": [', b"\xff"]
)
async def test_garbage_from_kubectl_is_an_error(cluster: FakeCluster, kubectl: Kubectl, stdout: bytes) -> None:
    cluster.print_next("get", stdout)
    with pytest.raises(errors.ClusterUnavailable):
        await kubectl.get([REFERENCE])


async def test_the_detail_of_a_failure_is_a_whole_bug_report(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.answer_next("get", "get-forbidden")
    with pytest.raises(errors.ClusterRefused) as caught:
        await kubectl.get([REFERENCE])
    assert caught.value.detail == (
        "command: kubectl get --ignore-not-found -o json -f -\n"
        "exit code: 1\n"
        "stdout: (none)\n"
        f"stderr: {case('get-forbidden').stderr.strip()}"
    )


async def test_kubectls_repeated_log_lines_are_in_the_detail_once(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.answer_next("get", "refused")
    with pytest.raises(errors.ConnectionFailed) as caught:
        await kubectl.get([REFERENCE])
    stderr = caught.value.detail.partition("stderr: ")[2].splitlines()
    assert len(case("refused").stderr.splitlines()) > 2
    assert len(stderr) == 2
    assert "memcache.go" in stderr[0]
    assert stderr[1].startswith("The connection to the server 127.0.0.1:1 was refused")


async def test_never_more_processes_at_once_than_allowed(cluster: FakeCluster, kubectl: Kubectl) -> None:
    holds = [cluster.hold_next("get") for _ in range(3)]
    calls = [asyncio.create_task(kubectl.get([REFERENCE])) for _ in range(3)]
    await asyncio.wait(calls, timeout=0.05)
    assert len(cluster.calls) == 2
    for hold in holds:
        hold.set()
    await asyncio.gather(*calls)
    assert len(cluster.calls) == 3


async def test_past_the_line_it_is_busy_at_once(cluster: FakeCluster, kubectl: Kubectl) -> None:
    holds = [cluster.hold_next("get") for _ in range(3)]
    calls = [asyncio.create_task(kubectl.get([REFERENCE])) for _ in range(3)]
    await asyncio.wait(calls, timeout=0.05)
    with pytest.raises(errors.Busy) as caught:
        await kubectl.get([REFERENCE])
    assert caught.value.status == 503
    assert caught.value.retry_after
    for hold in holds:
        hold.set()
    await asyncio.gather(*calls)
    assert await kubectl.get([REFERENCE]) == []


async def test_the_deadline_ends_a_call_that_hangs(cluster: FakeCluster) -> None:
    kubectl = Kubectl(cluster, max_processes=1, max_waiting=1, deadline=0.05)
    cluster.hold_next("get")
    with pytest.raises(errors.ClusterTimeout):
        await kubectl.get([REFERENCE])
    assert await kubectl.get([REFERENCE]) == []  # its place is free again


async def test_a_kubectl_that_is_not_there_is_503() -> None:
    runner = KubectlRunner(Path("/nowhere/kubectl"), (), {})
    kubectl = Kubectl(runner, max_processes=1, max_waiting=1)
    with pytest.raises(errors.ClusterUnavailable, match="can't run kubectl"):
        await kubectl.get([REFERENCE])


async def test_calls_are_logged_with_arguments_and_outcome_and_without_stdin(
    cluster: FakeCluster, kubectl: Kubectl, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="sandboxes.kubectl"):
        await kubectl.get([REFERENCE])
    assert cluster.calls
    assert "kubectl get --ignore-not-found -o json -f -: exit 0, " in caplog.text
    assert "sandbox-a" not in caplog.text


async def test_a_real_process_hangs_and_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "kubectl"
    script.write_text("#!/bin/sh\nsleep 600\n")
    script.chmod(0o755)
    kubectl = Kubectl(
        KubectlRunner(script, (), {"PATH": "/usr/bin:/bin"}), max_processes=1, max_waiting=1, deadline=0.3
    )
    with pytest.raises(errors.ClusterTimeout):
        await kubectl.get([REFERENCE])
