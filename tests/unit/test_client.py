"""The kubectl client: arguments, limits, deadlines, and the handling of output."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandboxes import errors, logs
from sandboxes.kubectl.client import STORES, URGENT_PROCESSES, Kubectl
from sandboxes.kubectl.output import SHOWN_IN_DETAIL
from sandboxes.kubectl.process import Completed
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.masking import forms_of
from tests.fakes import FakeCluster
from tests.record import case

REFERENCE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sandbox-a", "namespace": "deer-flow"},
}


async def test_apply_and_delete_use_the_recorded_arguments(cluster: FakeCluster, kubectl: Kubectl) -> None:
    """So the recorded output is that of the calls that the client makes."""
    await kubectl.apply([{**REFERENCE, "spec": {"containers": []}}])
    await kubectl.delete([REFERENCE])
    apply, delete = cluster.calls
    assert apply == case("kuberc-apply-dry-run-none").argv[1:]
    assert tuple(arg for arg in delete if arg != STORES) == case("delete-missing").argv[1:]


async def test_logs_use_the_recorded_arguments_with_container_and_limits(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    cluster.put(REFERENCE)
    cluster.written["sandbox-a", "sandbox", True] = "one\ntwo\n"
    with pytest.raises(errors.LogMissing):
        await kubectl.logs(REFERENCE, "sandbox", lines=20, most=1000)
    assert await kubectl.logs(REFERENCE, "sandbox", lines=1, most=2, previous=True) == b"tw"
    names = {"rec": "deer-flow", "sandbox-ready": "sandbox-a"}
    recorded = [names.get(arg, arg) for arg in case("logs").argv[1:]]
    assert cluster.calls[0] == (*recorded[:4], "-c", "sandbox", *recorded[4:], "--limit-bytes=1000")
    assert cluster.calls[1][-1] == case("logs-previous").argv[-1]


async def test_get_uses_the_recorded_arguments_without_ignore_not_found(cluster: FakeCluster, kubectl: Kubectl) -> None:
    assert await kubectl.get([REFERENCE]) == []
    assert cluster.calls == [tuple(arg for arg in case("get-stdin").argv[1:] if arg != "--ignore-not-found")]


async def test_get_rereads_the_objects_that_exist(cluster: FakeCluster, kubectl: Kubectl) -> None:
    """The output of a failed call is not used (record: get-half-missing)."""
    service = cluster.put(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sandbox-a-svc", "namespace": "deer-flow"}}
    )
    assert await kubectl.get([REFERENCE, service]) == [service]
    assert cluster.verbs()["get"] == 2


async def test_a_404_that_names_no_object_is_an_error(cluster: FakeCluster, kubectl: Kubectl) -> None:
    """Such as a proxy's 404: it must mean neither "no such sandbox" nor a completed delete."""
    for verb in ("get", "delete"):
        cluster.say_next(verb, "Error from server (NotFound): the server could not find the requested resource")
    with pytest.raises(errors.ServerFailed):
        await kubectl.get([REFERENCE])
    with pytest.raises(errors.ServerFailed):
        await kubectl.delete([REFERENCE])


@pytest.mark.parametrize("printed", [b"", b"panic: no such thing\n", b"pod/sandbox-b\n", b'{"kind": ', b"[]"])
async def test_a_delete_that_kubectl_does_not_confirm_is_an_error(
    cluster: FakeCluster, kubectl: Kubectl, printed: bytes
) -> None:
    obj = cluster.put({**REFERENCE, "metadata": {**REFERENCE["metadata"], "resourceVersion": "1"}})
    cluster.print_next("delete", printed)
    cluster.print_next("delete", printed)
    with pytest.raises(errors.ClusterUnavailable):
        await kubectl.delete([obj])
    with pytest.raises(errors.ClusterUnavailable):
        await kubectl.delete_exactly(obj)


async def test_a_repeated_exact_delete_reports_that_the_object_was_gone(cluster: FakeCluster, kubectl: Kubectl) -> None:
    obj = cluster.put(REFERENCE)
    assert await kubectl.delete_exactly(obj)
    assert not await kubectl.delete_exactly(obj)


async def test_get_accepts_a_single_object(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.print_next("get", json.dumps(REFERENCE).encode())
    assert await kubectl.get([REFERENCE]) == [REFERENCE]


async def test_urgent_calls_skip_the_queue(cluster: FakeCluster) -> None:
    kubectl = Kubectl(cluster, max_processes=1, max_waiting=0)
    hold = cluster.hold_next("get")
    call = asyncio.create_task(kubectl.get([REFERENCE]))
    await asyncio.wait([call], timeout=0.05)
    with pytest.raises(errors.Busy):
        await kubectl.get([REFERENCE])
    assert await kubectl.get([REFERENCE], urgent=True) == []
    hold.set()
    await call


async def test_a_probe_waits_neither_for_requests_nor_for_urgent_calls(cluster: FakeCluster) -> None:
    kubectl = Kubectl(cluster, max_processes=1, max_waiting=0)
    holds = [cluster.hold_next("get") for _ in range(1 + URGENT_PROCESSES)]
    calls = [asyncio.create_task(kubectl.get([REFERENCE], urgent=number > 0)) for number in range(len(holds))]
    while len(cluster.calls) < len(holds):
        await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await kubectl.probe()
    for hold in holds:
        hold.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize(
    "stdout",
    [
        b"garbage",
        b"[]",
        b"{}",
        b'{"kind": "List"}',
        b'{"kind": "List", "items": [',
        b"\xff",
        b'{"kind": null}',
        b'{"kind": "List", "items": [{}]}',
    ],
)
async def test_garbage_from_kubectl_is_an_error(cluster: FakeCluster, kubectl: Kubectl, stdout: bytes) -> None:
    cluster.print_next("get", stdout)
    with pytest.raises(errors.ClusterUnavailable):
        await kubectl.get([REFERENCE])


async def test_a_failures_detail_has_command_exit_code_and_output(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.answer_next("get", "get-forbidden")
    with pytest.raises(errors.ClusterRefused) as caught:
        await kubectl.get([REFERENCE])
    assert caught.value.detail == (
        "command: kubectl get -o json -f -\n"
        "exit code: 1\n"
        "stdout: (none)\n"
        f"stderr: {case('get-forbidden').stderr.strip()}"
    )


async def test_kubectls_message_about_the_kubeconfig_is_not_in_the_detail(cluster: FakeCluster) -> None:
    kubectl = Kubectl(cluster, max_processes=1, max_waiting=1, kubeconfig="/kube/config")
    cluster.answer_next("get", "kubeconfig-user-twice")
    with pytest.raises(errors.ClusterRefused) as caught:
        await kubectl.get([REFERENCE])
    assert caught.value.detail == (
        "command: kubectl get -o json -f -\n"
        "exit code: 1\n"
        "stdout: (none)\n"
        "stderr: not shown, since it is about the kubeconfig and may quote it: two of its users have one name. To see "
        "kubectl's own words, run `kubectl --kubeconfig /kube/config config view` and "
        "`kubectl --kubeconfig /kube/config version`."
    )


async def test_a_prompt_of_kubectl_is_not_in_the_detail() -> None:
    async def answer(args: Sequence[str], *, stdin: bytes | None) -> Completed:  # noqa: ARG001 - as a Runner
        return Completed(1, b"Please enter Username: ", "error: something\n")

    kubectl = Kubectl(answer, max_processes=1, max_waiting=1)
    with pytest.raises(errors.ClusterRefused) as caught:
        await kubectl.get([REFERENCE])
    assert "Please" not in caught.value.detail
    assert "it has no credentials for its user" in caught.value.detail


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_truncated_detail_shows_no_part_of_a_secret(stream: str) -> None:
    logs.hide_from("a file", lambda: forms_of(["half-of-this-secret"]))
    text = "x" * (SHOWN_IN_DETAIL - 5) + "half-of-this-secret"

    async def answer(args: Sequence[str], *, stdin: bytes | None) -> Completed:  # noqa: ARG001 - as a Runner
        return Completed(1, *((text.encode(), "") if stream == "stdout" else (b"", text)))

    kubectl = Kubectl(answer, max_processes=1, max_waiting=1)
    with pytest.raises(errors.ClusterRefused) as caught:
        await kubectl.get([REFERENCE])
    assert "xx" in caught.value.detail
    assert "half" not in caught.value.detail


async def test_repeated_log_lines_are_in_the_detail_once(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.answer_next("get", "refused")
    with pytest.raises(errors.ConnectionFailed) as caught:
        await kubectl.get([REFERENCE])
    stderr = caught.value.detail.partition("stderr: ")[2].splitlines()
    assert len(case("refused").stderr.splitlines()) > 2
    assert len(stderr) == 2
    assert "memcache.go" in stderr[0]
    assert stderr[1].startswith("The connection to the server 127.0.0.1:1 was refused")


async def test_concurrent_processes_are_limited(cluster: FakeCluster, kubectl: Kubectl) -> None:
    holds = [cluster.hold_next("get") for _ in range(3)]
    calls = [asyncio.create_task(kubectl.get([REFERENCE])) for _ in range(3)]
    await asyncio.wait(calls, timeout=0.05)
    assert len(cluster.calls) == 2
    for hold in holds:
        hold.set()
    await asyncio.gather(*calls)
    assert len(cluster.calls) == 3


async def test_a_full_queue_is_busy_immediately(cluster: FakeCluster, kubectl: Kubectl) -> None:
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


async def test_a_hanging_call_times_out_and_frees_its_slot(cluster: FakeCluster) -> None:
    kubectl = Kubectl(cluster, max_processes=1, max_waiting=1, deadline=0.05)
    cluster.hold_next("get")
    with pytest.raises(errors.ClusterTimeout):
        await kubectl.get([REFERENCE])
    assert await kubectl.get([REFERENCE]) == []  # its slot is free again


async def test_a_missing_kubectl_is_cluster_unavailable() -> None:
    runner = KubectlRunner(Path("/nowhere/kubectl"), (), {})
    kubectl = Kubectl(runner, max_processes=1, max_waiting=1)
    with pytest.raises(errors.ClusterUnavailable, match="can't run kubectl"):
        await kubectl.get([REFERENCE])


async def test_calls_are_logged_with_arguments_and_exit_code_but_not_stdin(
    cluster: FakeCluster, kubectl: Kubectl, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="sandboxes.kubectl"):
        await kubectl.get([REFERENCE])
    assert cluster.calls
    assert "kubectl get -o json -f -: exit 1, " in caplog.text
    assert "sandbox-a" not in caplog.text


async def test_a_real_process_that_hangs_times_out(tmp_path: Path) -> None:
    script = tmp_path / "kubectl"
    script.write_text("#!/bin/sh\nsleep 600\n")
    script.chmod(0o755)
    kubectl = Kubectl(
        KubectlRunner(script, (), {"PATH": "/usr/bin:/bin"}), max_processes=1, max_waiting=1, deadline=0.3
    )
    with pytest.raises(errors.ClusterTimeout):
        await kubectl.get([REFERENCE])


async def test_gogc_is_set_unless_the_operator_sets_it(tmp_path: Path) -> None:
    script = tmp_path / "kubectl"
    script.write_text('#!/bin/sh\necho "${GOGC-unset}"\n')
    script.chmod(0o755)
    runner = KubectlRunner(script, (), {"PATH": "/usr/bin:/bin"})
    assert (await runner(["get"], stdin=b"{}")).stdout == b"400\n"
    assert (await runner(["get"], stdin=None)).stdout == b"400\n"
    watch = await runner.start(["get"], reads=False)
    assert [line async for line in watch.lines(100)] == [b"400"]
    await watch.kill()
    passed = KubectlRunner(script, (), {"PATH": "/usr/bin:/bin", "GOGC": "50"})
    assert (await passed(["get"], stdin=b"{}")).stdout == b"50\n"
