"""GET /api/sandboxes/{id}/diagnostics: its content, and errors of single sections."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from sandboxes.models.responses import MAX_LOG_BYTES, Diagnostics
from sandboxes.service import diagnostics
from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster
from tests.record import case, events_about, recorded_pods
from tests.waiting import until


async def create(client: Client) -> None:
    response = await client.post(URL, json={"sandbox_id": "a"})
    assert response.status == 200, await response.text()


async def diagnostics_of(client: Client) -> dict[str, Any]:
    response = await client.get(f"{URL}/a/diagnostics")
    assert response.status == 200, await response.text()
    assert response.content_type == "application/json"
    answer: dict[str, Any] = await response.json()
    assert answer.keys() == Diagnostics.model_fields.keys()
    return answer


async def create_like(client: Client, cluster: FakeCluster, name: str, events: str = "") -> dict[str, Any]:
    """Create sandbox a with the status of a recorded Pod and with recorded Events; return its Pod."""
    await create(client)
    pod = cluster.pod("a")
    assert pod is not None
    recorded = copy.deepcopy(recorded_pods()[name])
    pod["status"], pod["spec"]["nodeName"] = recorded["status"], recorded["spec"].get("nodeName")
    if events:
        cluster.events += events_about(pod, events)
    return pod


def write(cluster: FakeCluster, text: str, *, previous: bool = False) -> None:
    cluster.written["sandbox-a", "sandbox", previous] = text


async def test_diagnostics_of_a_ready_sandbox_report_no_problem(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    write(cluster, case("logs").stdout)
    answer = await diagnostics_of(client)
    assert answer["summary"] == "Nothing is wrong: the sandbox is ready."
    assert (answer["status"], answer["ready"], answer["reason"], answer["message"]) == ("Running", True, None, None)
    assert answer["sandbox_url"] == (await (await client.get(f"{URL}/a")).json())["sandbox_url"]
    assert {one["type"]: one["status"] for one in answer["conditions"]}["Ready"] == "True"
    assert answer["logs"] == {"lines": ["2026/11/22 04:19:51 listening on :8080 uid=0"], "error": None}
    assert answer["previous_logs"] is None
    assert answer["events"] == {"items": [], "error": None}


async def test_a_crash_loop_has_its_last_termination_and_previous_logs(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-crash-loop")
    write(cluster, "once more\n")
    write(cluster, case("logs-previous").stdout, previous=True)
    answer = await diagnostics_of(client)
    assert (answer["status"], answer["reason"]) == ("Failed", "CrashLoopBackOff")
    assert "exit code 3" in answer["summary"]
    [container] = answer["containers"]
    assert (container["name"], container["init"], container["restart_count"]) == ("sandbox", False, 1)
    assert (container["state"]["state"], container["state"]["reason"]) == ("waiting", "CrashLoopBackOff")
    assert container["last_termination"] == {
        "state": "terminated",
        "reason": "Error",
        "message": None,
        "exit_code": 3,
        "started_at": "2026-11-22T04:20:17Z",
        "finished_at": "2026-11-22T04:20:17Z",
    }
    assert answer["logs"]["lines"] == ["once more"]
    assert answer["previous_logs"] == {"lines": ["dying"], "error": None}


async def test_the_reason_is_taken_from_events(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-failed-mount", "events-failed-mount")
    answer = await diagnostics_of(client)
    assert (answer["ready"], answer["reason"]) == (False, "FailedMount")
    assert "/no/such/skills is not a directory" in answer["message"]
    assert answer["summary"].startswith("A volume can't be mounted: /no/such/skills is not a directory on node node1")
    assert (await (await client.get(f"{URL}/a")).json())["reason"] == "ContainerCreating"


async def test_events_have_kubernetes_fields_and_are_sorted_by_time(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-failed-mount", "events-failed-mount")
    cluster.events.reverse()
    scheduled, mount = (await diagnostics_of(client))["events"]["items"]
    assert mount == {
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "s" : hostPath type check failed: /no/such/skills is not a '
        "directory",
        "count": 4,
        "first_timestamp": "2026-11-22T04:20:27Z",
        "last_timestamp": "2026-11-22T04:20:30Z",
    }
    # Events of the newer API have their time in another field.
    assert (scheduled["reason"], scheduled["count"]) == ("Scheduled", 1)
    assert scheduled["first_timestamp"] == scheduled["last_timestamp"] == "2026-11-22T04:20:27.265896Z"


async def test_only_the_last_50_events_are_returned(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-failed-mount", "events-failed-mount")
    one = cluster.events.pop()
    for number in range(60):
        version = {**one["metadata"], "resourceVersion": str(20000 + number)}
        cluster.events.append({**one, "metadata": version, "message": f"m{number}"})
    items = (await diagnostics_of(client))["events"]["items"]
    assert [event["message"] for event in items] == [f"m{number}" for number in range(10, 60)]


async def test_events_of_another_pod_with_the_same_name_are_omitted(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-failed-mount", "events-failed-mount")
    for event in cluster.events:
        event["involvedObject"]["uid"] = "another"
    answer = await diagnostics_of(client)
    assert answer["events"] == {"items": [], "error": None}
    assert answer["reason"] == "ContainerCreating"


async def test_a_missing_log_is_reported_in_the_logs_error(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-image-pull-backoff", "events-image-pull")
    answer = await diagnostics_of(client)
    assert answer["logs"] == {"lines": [], "error": "The container has not started, so it has no log yet"}
    assert answer["reason"] == "ImagePullBackOff"
    events = answer["events"]["items"]
    assert {event["reason"] for event in events} == {"Scheduled", "Pulling", "Failed", "BackOff"}
    times = [event["last_timestamp"][:19] for event in events]
    assert times == sorted(times)


async def test_logs_are_the_last_100_lines_within_the_byte_limit(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    write(cluster, "".join(f"line {number}\n" for number in range(200)))
    assert (await diagnostics_of(client))["logs"]["lines"] == [f"line {number}" for number in range(100, 200)]
    write(cluster, "".join(f"{number:03} {'x' * 10_000}\n" for number in range(200)))
    lines = (await diagnostics_of(client))["logs"]["lines"]
    assert [line[:3] for line in lines[1:]] == [f"{number:03}" for number in range(194, 200)]
    assert sum(map(len, lines)) <= MAX_LOG_BYTES
    calls = [call for call in cluster.calls if call[0] == "logs"]
    assert all({"--tail=100", f"--limit-bytes={diagnostics.MAX_READ_BYTES}"} <= {*call} for call in calls)


async def test_invalid_utf8_in_logs_is_replaced(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    cluster.print_next("logs", b"\xff\x00 caf\xc3\xa9 \x1b[31m\n")
    assert (await diagnostics_of(client))["logs"]["lines"] == ["\ufffd\x00 café \x1b[31m"]


@pytest.mark.parametrize("verb", ["logs", "get"])
async def test_a_missing_right_is_an_error_of_its_section_only(client: Client, cluster: FakeCluster, verb: str) -> None:
    await create_like(client, cluster, "pod-failed-mount", "events-failed-mount")
    write(cluster, "hello\n")
    refused = {
        "logs": 'pods "sandbox-a" is forbidden: User "u" cannot get resource "pods/log" in API group ""',
        "get": 'events is forbidden: User "u" cannot list resource "events" in API group ""',
    }[verb]
    if verb == "get":  # the first get reads the Pod

        def refuse() -> None:
            cluster.say_next("get", f"Error from server (Forbidden): {refused}")

        cluster.do_before_next("get", refuse)
    else:
        cluster.say_next("logs", f"Error from server (Forbidden): {refused}")
    answer = await diagnostics_of(client)
    lacks = "The provisioner lacks the right to {} in the cluster"
    assert answer["logs"]["error"] == (lacks.format("get pods/log") if verb == "logs" else None)
    assert answer["events"]["error"] == (lacks.format("list events") if verb == "get" else None)
    assert answer["logs"]["lines"] == ([] if verb == "logs" else ["hello"])
    assert answer["reason"] == ("FailedMount" if verb == "logs" else "ContainerCreating")
    assert "User" not in json.dumps(answer)


async def test_a_pod_deleted_during_the_request_still_has_diagnostics(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    cluster.do_before_next("logs", cluster.objects.clear)
    answer = await diagnostics_of(client)
    assert answer["logs"] == {"lines": [], "error": "The sandbox's Pod was deleted in the meantime"}


async def test_events_and_logs_are_read_concurrently(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-crash-loop")
    write(cluster, "now\n")
    write(cluster, "then\n", previous=True)
    holds = [cluster.hold_next("logs"), cluster.hold_next("logs")]
    cluster.do_before_next("get", lambda: holds.append(cluster.hold_next("get")))
    before = len(cluster.calls)
    request = asyncio.create_task(diagnostics_of(client))
    await until(lambda: len(cluster.calls) - before == 4)
    assert sorted(call[0] for call in cluster.calls[before:]) == ["get", "get", "logs", "logs"]
    for hold in holds:
        hold.set()
    answer = await request
    assert (answer["logs"]["lines"], answer["previous_logs"]["lines"]) == (["now"], ["then"])


@pytest.mark.deadlines(diagnosis=0.5)
async def test_a_timeout_is_an_error_of_its_section_only(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    cluster.hold_next("logs")
    answer = await diagnostics_of(client)
    assert answer["logs"]["error"] == "The cluster did not answer in time"
    assert answer["summary"] == "Nothing is wrong: the sandbox is ready."


@pytest.mark.deadlines(diagnosis=0.2)
async def test_a_timeout_of_the_pod_read_is_504(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    cluster.hold_next("get")
    assert (await client.get(f"{URL}/a/diagnostics")).status == 504


@pytest.mark.parametrize("sandbox_id", ["none", "A", "a" * 52, "a%0A"])
async def test_a_missing_sandbox_is_the_same_404_as_for_get(client: Client, sandbox_id: str) -> None:
    got = await client.get(f"{URL}/{sandbox_id}")
    diagnosed = await client.get(f"{URL}/{sandbox_id}/diagnostics")
    assert (diagnosed.status, await diagnosed.json()) == (404, await got.json())


async def test_a_terminating_sandbox_is_404(client: Client, cluster: FakeCluster) -> None:
    pod = await create_like(client, cluster, "pod-ready")
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert (await client.get(f"{URL}/a/diagnostics")).status == 404


async def test_a_foreign_pod_with_the_name_is_404(client: Client, cluster: FakeCluster) -> None:
    pod = await create_like(client, cluster, "pod-ready")
    del pod["metadata"]["labels"]["app"]
    assert (await client.get(f"{URL}/a/diagnostics")).status == 404


async def test_a_missing_service_is_named_in_the_summary(client: Client, cluster: FakeCluster) -> None:
    await create_like(client, cluster, "pod-ready")
    del cluster.objects["Service", "deer-flow", "sandbox-a-svc"]
    assert (await client.get(f"{URL}/a")).status == 404
    answer = await diagnostics_of(client)
    assert answer["sandbox_url"] is None
    assert "its Service is missing" in answer["summary"]


async def test_a_service_without_a_pod_is_404(client: Client, cluster: FakeCluster) -> None:
    await create(client)
    del cluster.objects["Pod", "deer-flow", "sandbox-a"]
    assert (await client.get(f"{URL}/a/diagnostics")).status == 404


async def test_init_containers_come_first_and_containers_without_a_status_are_listed(
    client: Client, cluster: FakeCluster
) -> None:
    pod = await create_like(client, cluster, "pod-creating")
    pod["spec"]["initContainers"] = [{"name": "prepare", "image": "prepare:1"}]
    pod["spec"]["containers"].append({"name": "sidecar", "image": "sidecar:1"})
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    pod["status"]["initContainerStatuses"] = [{"name": "prepare", "state": waiting, "restartCount": 0}]
    answer = await diagnostics_of(client)
    containers = [(one["name"], one["init"], one["state"] and one["state"]["reason"]) for one in answer["containers"]]
    assert containers == [
        ("prepare", True, "ErrImagePull"),
        ("sandbox", False, "ContainerCreating"),
        ("sidecar", False, None),
    ]
    assert answer["summary"].startswith("The image prepare:1 can't be pulled")
    assert answer["message"] == "no such image"
