"""The log line for each termination of a Pod or container, with the recorded watch and others."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from sandboxes.cluster.terminations import TerminationLog
from sandboxes.deadlines import DEADLINES
from tests.record import recorded_pods, watch_events

Pod = dict[str, Any]


class Watched:
    """Signals successive versions of Pods by name, as an informer does."""

    def __init__(self, terminations: TerminationLog) -> None:
        self.terminations = terminations
        self.pods: dict[str, Pod] = {}

    def see(self, pod: Pod) -> None:
        name = pod["metadata"]["name"]
        old, self.pods[name] = self.pods.get(name), pod
        self.terminations.on_exchange(old, pod)

    def lose(self, name: str) -> None:
        self.terminations.on_exchange(self.pods.pop(name), None)


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    with caplog.at_level(logging.INFO, logger="sandboxes.cluster.terminations"):
        yield Watched(TerminationLog())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sandboxes.cluster.terminations"]


def versions(name: str) -> Iterator[tuple[str, Pod]]:
    for event in watch_events():
        if event["object"]["metadata"]["name"] == name:
            yield event["type"], copy.deepcopy(event["object"])


def play(watched: Watched, name: str) -> None:
    for kind, pod in versions(name):
        if kind == "DELETED":
            watched.lose(name)
        else:
            watched.see(pod)


def ready(**status: Any) -> Pod:
    pod = copy.deepcopy(recorded_pods()["pod-ready"])
    pod["status"] |= status
    return pod


def ended(run: int, reason: str, exit_code: int, *, lasted: str = "00:00:01", running: bool = False) -> Pod:
    """Return a Pod whose sandbox container ended in this run; `running`: it was restarted."""
    hours = f"2026-01-01T{run:02}"
    over = {
        "containerID": f"containerd://{run}",
        "reason": reason,
        "exitCode": exit_code,
        "startedAt": f"{hours}:00:00Z",
        "finishedAt": f"2026-01-01T{run:02}:{lasted[3:]}Z",
    }
    state = {"running": {}} if running else {"terminated": over}
    last = {"terminated": over} if running else {}
    return ready(containerStatuses=[{"name": "sandbox", "state": state, "lastState": last, "restartCount": run}])


# The log lines for each Pod of the recorded watch.
RECORDED: dict[str, list[str]] = {
    "sandbox-a": [],
    "sandbox-ready": [],
    "sandbox-unready": [],
    "sandbox-nopull": [],
    "sandbox-mount": [],
    "sandbox-warn": [],
    "sandbox-crash": ["WARNING sandbox crash has ended and is started again: reason Error, exit code 3"],
    "sandbox-oom": ["WARNING sandbox oom has ended and is started again: reason OOMKilled, exit code 137"],
    "sandbox-fail": ["WARNING sandbox fail has ended: reason Error, exit code 7"],
    "sandbox-done": ["INFO sandbox done has ended: reason Completed, exit code 0"],
    "sandbox-slow": ["WARNING sandbox slow is gone: reason Deleted, exit code 137"],
    "sandbox-b": ["WARNING sandbox b is gone: reason Deleted, exit code -"],
    "sandbox-c": ["WARNING sandbox c is gone: reason Deleted, exit code -"],
}


def test_the_recorded_watch_logs_one_line_for_each_termination(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    assert {event["object"]["metadata"]["name"] for event in watch_events()} == RECORDED.keys()
    for name, expected in RECORDED.items():
        caplog.clear()
        play(watched, name)
        logged = []
        for record in caplog.records:
            head, _, rest = record.getMessage().partition(": thread ")
            logged.append(f"{record.levelname} {head}: {rest.partition(', ')[2].partition(', age')[0]}")
        assert (name, logged) == (name, expected)


def test_a_line_has_thread_reason_exit_code_age_and_message(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    pod = ended(1, "Error", 7)
    pod["metadata"]["annotations"] = {"provisioner/thread-id": "t-1"}
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = "no such file\n2026-01-01 forged line"
    watched.see({**pod, "status": ready()["status"]})
    watched.see(pod)
    [line] = lines(caplog)
    assert line.startswith("sandbox ready has ended and is started again: thread t-1, reason Error, exit code 7, age ")
    assert line.endswith(", message: no such file 2026-01-01 forged line")
    assert float(line.partition("age ")[2].partition(" s")[0]) > 1_000_000


def test_repeated_versions_are_not_logged_again(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        for name in RECORDED:
            for kind, pod in versions(name):
                if kind != "DELETED" and "deletionTimestamp" not in pod["metadata"]:
                    watched.see(pod)
                    watched.see(copy.deepcopy(pod))
    first = [line for line in lines(caplog) if "sandbox fail" in line]
    assert len(first) == 1
    again = Watched(watched.terminations)
    caplog.clear()
    for pod in watched.pods.values():
        again.see(pod)
    assert lines(caplog) == []


def test_a_termination_between_watches_is_logged_after_the_next_list(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.see(ready())
    watched.see(ended(1, "OOMKilled", 137, running=True))
    assert len(lines(caplog)) == 1


def test_a_termination_before_the_first_version_is_not_logged(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.see(ended(1, "Error", 1))
    watched.see(copy.deepcopy(recorded_pods()["pod-failed"]))
    watched.lose("sandbox-fail")
    assert lines(caplog) == []


def test_a_cause_is_logged_again_if_it_changes_or_follows_a_long_run(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.see(ready())
    watched.see(ended(1, "Error", 1))
    watched.see(ended(2, "Error", 1))
    assert len(lines(caplog)) == 1
    watched.see(ended(3, "OOMKilled", 137))
    watched.see(ended(4, "OOMKilled", 137))
    assert len(lines(caplog)) == 2
    watched.see(ended(5, "OOMKilled", 137, lasted="00:20:00"))
    assert len(lines(caplog)) == 3


def test_a_termination_that_disappears_from_the_status_is_not_logged_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.see(ready())
    watched.see(ended(1, "Error", 1))
    watched.see(ready())
    assert len(lines(caplog)) == 1


def test_an_eviction_is_logged_once_with_its_message(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.see(ready())
    status = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    watched.see(ready(phase="Failed", **status))
    watched.see(ended(1, "Error", 137) | {"status": ended(1, "Error", 137)["status"] | status | {"phase": "Failed"}})
    watched.lose("sandbox-ready")
    assert [line.partition("reason ")[2].partition(",")[0] for line in lines(caplog)] == ["Evicted"]
    assert lines(caplog)[0].endswith("message: The node was low on resource: memory.")


def test_an_eviction_after_a_crash_is_logged(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.see(ready())
    watched.see(ended(1, "Error", 1, running=True))
    watched.see({**ended(1, "Error", 1, running=True), "status": {"phase": "Failed", "reason": "Evicted"}})
    assert "reason Evicted" in lines(caplog)[1]


def test_the_reason_of_a_disruption_is_logged_when_the_pod_is_gone(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.see(ready())
    removed = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "m"}
    last = ready(conditions=[removed])
    last["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    watched.see(last)
    assert lines(caplog) == []
    watched.lose("sandbox-ready")
    assert "is gone" in lines(caplog)[0]
    assert "reason DeletionByTaintManager" in lines(caplog)[0]


def test_an_own_deletion_is_not_logged(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    uid = recorded_pods()["pod-terminating"]["metadata"]["uid"]
    watched.terminations.expect({"sandbox-slow": uid})
    play(watched, "sandbox-slow")
    assert lines(caplog) == []


def test_an_own_deletion_with_a_long_grace_period_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = [0.0]
    watched = Watched(TerminationLog(lambda: clock[0]))
    watched.terminations.expect({"sandbox-slow": None})
    for kind, pod in versions("sandbox-slow"):
        if kind != "DELETED":
            watched.see(pod)
    clock[0] = DEADLINES.deletion_expected + 1
    watched.lose("sandbox-slow")
    assert lines(caplog) == []


def test_an_own_deletion_cached_before_its_event_is_not_logged(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    pod = ready()
    watched.see(pod)
    watched.terminations.expect({"sandbox-ready": pod["metadata"]["uid"]})
    watched.lose("sandbox-ready")
    terminating = copy.deepcopy(pod)
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    watched.see(terminating)
    watched.lose("sandbox-ready")
    assert lines(caplog) == []


def test_the_end_of_a_recreated_pod_is_logged(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    pod = ready()
    watched.see(pod)
    watched.terminations.expect({"sandbox-ready": pod["metadata"]["uid"]})
    other = copy.deepcopy(pod)
    other["metadata"]["uid"] = "another"
    watched.see(other)
    assert lines(caplog) == []
    watched.lose("sandbox-ready")
    assert len(lines(caplog)) == 1


def test_a_replaced_pod_is_logged_as_gone(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.see(ready())
    other = ready()
    other["metadata"]["uid"] = "another"
    watched.see(other)
    assert len(lines(caplog)) == 1
    assert "is gone" in lines(caplog)[0]
