"""Reasons, diagnostics and causes of termination of a sandbox in each state, through a real kubectl."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import kmock
import pytest

from devcluster import Cluster
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.views import end_watches
from tests.kubectl import Kubectl
from tests.waiting import until

# Pods keep their state until a test sets another one.
pytestmark = pytest.mark.devcluster(start_after=100_000)

POD, NAMESPACE = "sandbox-a", "deer-flow"


def put_pod_into(cluster: Cluster, *states: str) -> None:
    cluster.put_pod_into(NAMESPACE, POD, *states)


async def get_sandbox(provisioner: Provisioner, path: str = "") -> dict[str, Any]:
    response = await provisioner.get(f"{URL}/a{path}")
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def until_reason(provisioner: Provisioner, reason: str | None) -> dict[str, Any]:
    async def has_reason() -> bool:
        return bool((await get_sandbox(provisioner))["reason"] == reason)

    await until(has_reason)
    return await get_sandbox(provisioner)


# state: (the steps to it, status, reason in a response, reason in diagnostics, a part of the summary)
STATES: dict[str, tuple[tuple[str, ...], str, str | None, str | None, str]] = {
    "new": ((), "Pending", "ContainerCreating", "ContainerCreating", "still being made"),
    "unschedulable": (("unschedulable",), "Pending", "Unschedulable", "Unschedulable", "No node can take"),
    "image": (("err-image-pull",), "Pending", "ErrImagePull", "ErrImagePull", "can't be pulled"),
    "image again": (("image-pull-backoff",), "Pending", "ImagePullBackOff", "ImagePullBackOff", "can't be pulled"),
    "mount": (("failed-mount",), "Pending", "ContainerCreating", "FailedMount", "volume can't be mounted"),
    "unready": (("running-unready",), "Running", "NotReady", "NotReady", "a probe does not pass yet"),
    "crash": (("ready", "crash-loop"), "Failed", "CrashLoopBackOff", "CrashLoopBackOff", "with exit code 3"),
    "memory": (("ready", "out-of-memory", "crash-loop"), "Failed", "OOMKilled", "OOMKilled", "its memory of 1Gi"),
    "evicted": (("ready", "evicted"), "Failed", "Evicted", "Evicted", "create it again"),
    "failed": (("ready", "failed"), "Failed", "Error", "Error", "exit code 7"),
    "succeeded": (("ready", "succeeded"), "Succeeded", "Completed", "Completed", "ended by itself"),
    "ready": (("ready",), "Running", None, None, "Nothing is wrong: the sandbox is ready."),
    "ready again": (("ready", "oom-killed", "ready"), "Running", None, None, "after 1 restart, the last for OOMKilled"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "live"), [*((name, "true") for name in STATES), ("mount", "false"), ("crash", "false")]
)
async def test_each_state_has_its_status_reason_and_summary(
    start_provisioner: StartProvisioner, cluster: Cluster, name: str, live: str
) -> None:
    states, status, reason, diagnosed, sentence = STATES[name]
    provisioner = await start_provisioner(LIVE_VIEW=live)
    await create(provisioner)
    put_pod_into(cluster, *states)
    answer = await until_reason(provisioner, reason)
    assert (answer["status"], answer["ready"]) == (status, reason is None)
    assert (answer["message"] is None) == (reason in (None, "ContainerCreating"))
    [listed] = (await (await provisioner.get(URL)).json())["sandboxes"]
    assert listed == answer
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    assert (diagnosis["status"], diagnosis["ready"]) == (status, reason is None)
    assert diagnosis["reason"] == diagnosed
    assert sentence in diagnosis["summary"]
    assert diagnosis["events"]["error"] is None
    assert diagnosis["sandbox_url"] == answer["sandbox_url"]


async def test_diagnostics_have_events_containers_and_logs(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    put_pod_into(cluster, "creating")
    cluster.set_log(NAMESPACE, POD, "".join(f"line {number}\n" for number in range(150)))
    put_pod_into(cluster, "ready", "crash-loop")
    await until_reason(provisioner, "CrashLoopBackOff")
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    [container] = diagnosis["containers"]
    assert (container["name"], container["restart_count"]) == ("sandbox", 1)
    assert container["last_termination"]["exit_code"] == 3
    expected = [f"line {number}" for number in range(50, 150)]
    assert diagnosis["logs"] == {"lines": expected, "error": None}
    assert diagnosis["previous_logs"] == {"lines": expected, "error": None}
    events = diagnosis["events"]["items"]
    assert events[0]["reason"] == "Scheduled"
    assert events[-1]["reason"] == "BackOff"
    assert {one["type"] for one in diagnosis["conditions"]} >= {"Ready", "PodScheduled"}


@pytest.mark.slow
async def test_diagnostics_explain_the_missing_log_of_an_unstarted_container(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    await create(provisioner)
    put_pod_into(cluster, "image-pull-backoff")
    await until_reason(provisioner, "ImagePullBackOff")
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    assert diagnosis["logs"] == {"lines": [], "error": "The container has not started, so it has no log yet"}
    assert diagnosis["previous_logs"] is None
    assert diagnosis["events"]["items"]


@pytest.mark.slow
async def test_forbidden_events_are_an_error_of_their_section_only(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    put_pod_into(cluster, "failed-mount")
    await until_reason(provisioner, "ContainerCreating")
    message = 'events is forbidden: User "u" cannot list resource "events" in API group "" in the namespace "deer-flow"'
    cluster.kmock["get", kmock.resource("v1/events")] << kmock.KubernetesError(403, "Forbidden", message, {})
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    assert diagnosis["events"] == {
        "items": [],
        "error": "The provisioner lacks the right to list events in the cluster",
    }
    assert diagnosis["reason"] == "ContainerCreating"
    assert diagnosis["conditions"]


async def test_diagnostics_of_a_hanging_cluster_are_partial_at_the_deadline(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    """Data of the live view is present; sections that need the cluster have an error."""
    await create(provisioner)
    put_pod_into(cluster, "ready", "crash-loop")
    await until_reason(provisioner, "CrashLoopBackOff")
    await until(lambda: provisioner.view.is_fresh)
    cluster.faults.hang()
    provisioner.set_deadlines(diagnosis=0.5)
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    late = "The cluster did not answer in time"
    assert [diagnosis[part]["error"] for part in ("events", "logs", "previous_logs")] == [late] * 3
    assert "with exit code 3" in diagnosis["summary"]


@pytest.mark.slow
async def test_diagnostics_without_a_live_view_time_out_with_504(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(LIVE_VIEW="false")
    await create(provisioner)
    cluster.faults.hang()
    provisioner.set_deadlines(read=0.5)
    assert (await provisioner.get(f"{URL}/a/diagnostics")).status == 504


async def test_a_missing_service_is_diagnosed_and_restored_by_a_create(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner)
    put_pod_into(cluster, "ready")
    assert (await kubectl("delete", f"service/{POD}-svc", "-n", NAMESPACE)).rc == 0

    async def is_diagnosed() -> bool:
        return "its Service is missing" in (await get_sandbox(provisioner, "/diagnostics"))["summary"]

    await until(is_diagnosed)
    await create(provisioner)
    diagnosis = await get_sandbox(provisioner, "/diagnostics")
    assert diagnosis["summary"] == "Nothing is wrong: the sandbox is ready."
    assert (await provisioner.get(f"{URL}/none/diagnostics")).status == 404


# Causes of termination


@pytest.fixture
def terminations(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="sandboxes.cluster.terminations")
    return caplog


def lines(terminations: pytest.LogCaptureFixture) -> list[str]:
    """Return the level, the summary, the reason and the exit code of each logged termination."""
    messages = []
    for record in terminations.records:
        if record.name == "sandboxes.cluster.terminations":
            head, _, rest = record.getMessage().partition(": thread t, ")
            messages.append(f"{record.levelname} {head}: {rest.partition(', age')[0]}")
    return messages


TERMINATIONS = {
    ("crash-loop",): "WARNING sandbox a has ended and is started again: reason Error, exit code 3",
    ("oom-killed",): "WARNING sandbox a has ended and is started again: reason OOMKilled, exit code 137",
    ("out-of-memory", "crash-loop", "ready"): "WARNING sandbox a has ended and is started again: reason OOMKilled, "
    "exit code 137",
    ("evicted",): "WARNING sandbox a has ended: reason Evicted, exit code 137",
}


@pytest.mark.slow
@pytest.mark.parametrize("states", TERMINATIONS, ids=lambda states: states[0])
async def test_a_termination_is_logged_once(
    provisioner: Provisioner,
    cluster: Cluster,
    kubectl: Kubectl,
    terminations: pytest.LogCaptureFixture,
    states: tuple[str, ...],
) -> None:
    await create(provisioner, thread_id="t")
    put_pod_into(cluster, "ready")
    await until_reason(provisioner, None)
    await until(lambda: provisioner.view.is_fresh)
    put_pod_into(cluster, *states)
    await until(lambda: lines(terminations))
    await end_watches(cluster)
    await until(lambda: not provisioner.view.is_fresh)
    annotated = await kubectl("annotate", f"pod/{POD}", "-n", NAMESPACE, "seen=again")
    assert annotated.rc == 0, annotated.stderr
    await until(lambda: provisioner.view.is_fresh)

    def annotations() -> dict[str, str]:
        pod = provisioner.view.sandbox("a")[0]
        found: dict[str, str] = {} if pod is None else pod["metadata"]["annotations"]
        return found

    await until(lambda: "seen" in annotations())
    assert lines(terminations) == [TERMINATIONS[states]]


async def test_a_manual_delete_is_logged_as_a_termination_and_a_callers_is_not(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl, terminations: pytest.LogCaptureFixture
) -> None:
    for by_hand in (False, True):
        await create(provisioner, thread_id="t")
        put_pod_into(cluster, "ready")
        await until_reason(provisioner, None)
        await until(lambda: provisioner.view.is_fresh)
        if by_hand:
            assert (await kubectl("delete", f"pod/{POD}", "-n", NAMESPACE)).rc == 0
        else:
            assert (await provisioner.delete(f"{URL}/a")).status == 200
        await until(lambda: cluster.get("Pod", NAMESPACE, POD) is None)
        await until(lambda: provisioner.view.sandbox("a")[0] is None)
        if not by_hand:
            assert lines(terminations) == []
    assert lines(terminations) == ["WARNING sandbox a is gone: reason Deleted, exit code 0"]


async def test_the_termination_of_a_replaced_sandbox_is_logged_once(
    provisioner: Provisioner, cluster: Cluster, terminations: pytest.LogCaptureFixture
) -> None:
    await create(provisioner, thread_id="t")
    put_pod_into(cluster, "ready")
    await until_reason(provisioner, None)
    put_pod_into(cluster, "failed")
    await until_reason(provisioner, "Error")
    await create(provisioner, thread_id="t")
    await until_reason(provisioner, "ContainerCreating")
    await until(lambda: provisioner.view.is_fresh)
    assert lines(terminations) == ["WARNING sandbox a has ended and is started again: reason Error, exit code 7"]


@pytest.mark.slow
async def test_ten_concurrent_diagnostics_all_succeed(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    put_pod_into(cluster, "ready")
    await until_reason(provisioner, None)
    answers = await asyncio.gather(*(get_sandbox(provisioner, "/diagnostics") for _ in range(10)))
    assert {answer["summary"] for answer in answers} == {"Nothing is wrong: the sandbox is ready."}
    assert {json.dumps(answer["events"]["error"]) for answer in answers} == {"null"}
