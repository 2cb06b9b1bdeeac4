"""The expiry of a sandbox, by its Pod's annotations and status, and the sandboxes due for the reaper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.service.reaper import due_of
from sandboxes.settings import Settings
from sandboxes.status.reasons import has_ended
from tests.record import case, recorded_pods

MakeSettings = Callable[..., Settings]
START = datetime(2026, 1, 1, tzinfo=UTC)


def pod(sandbox_id: str = "a", **annotations: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": kube.pod_name(sandbox_id),
            "uid": f"uid-{sandbox_id}",
            "labels": kube.labels_of(sandbox_id),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {f"provisioner/{name.replace('_', '-')}": value for name, value in annotations.items()},
        },
        "status": {"phase": "Running"},
    }


def service(sandbox_id: str = "a") -> dict[str, Any]:
    made = pod(sandbox_id)
    return {**made, "kind": "Service", "metadata": {**made["metadata"], "name": kube.service_name(sandbox_id)}}


@pytest.mark.parametrize(
    ("annotations", "seconds"),
    [
        ({}, None),
        ({"expires_at": "never"}, None),
        ({"expires_at": "some day"}, None),
        ({"expires_at": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_at": "2026-01-01T01:01:00+01:00"}, 60),
        ({"expires_at": "2026-01-01T00:00:59.000001Z"}, 60),
        ({"idle_timeout_seconds": "30"}, 30),
        ({"idle_timeout_seconds": "0"}, None),
        ({"idle_timeout_seconds": "-1"}, None),
        ({"idle_timeout_seconds": "٣"}, None),
        ({"idle_timeout_seconds": "9" * 50}, None),
        ({"idle_timeout_seconds": "30", "used_at": "2026-01-01T00:00:15Z"}, 45),
        ({"idle_timeout_seconds": "30", "used_at": "2025-01-01T00:00:00Z"}, 30),
        ({"idle_timeout_seconds": "30", "expires_at": "2026-01-01T00:00:10Z"}, 10),
        ({"idle_timeout_seconds": "30", "expires_at": "never"}, 30),
    ],
)
def test_the_earlier_of_ttl_and_idle_timeout_is_the_expiry(annotations: dict[str, str], seconds: int | None) -> None:
    actual = expiry.expires_at(pod(**annotations))
    expected = None if seconds is None else (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    assert actual == expected


def test_an_unwritten_use_counts() -> None:
    used = START + timedelta(seconds=20)
    assert expiry.expires_at(pod(idle_timeout_seconds="30"), used) == "2026-01-01T00:00:50Z"


@pytest.mark.parametrize("name", ["pod-failed", "pod-succeeded"])
def test_a_pod_ends_when_its_container_finished(name: str) -> None:
    recorded = case(name).items[0]
    finished = recorded["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    assert expiry.ended_at(recorded) == datetime.fromisoformat(finished)


def test_annotations_of_ttl_and_idle_timeout_are_read_back() -> None:
    marked = pod()
    marked["metadata"]["annotations"] = expiry.marks_of(60, 30, START)
    assert expiry.ttl_ends_at(marked) == START + timedelta(seconds=60)
    assert expiry.idle_timeout(marked) == timedelta(seconds=30)
    assert expiry.marks_of(0, 0, START) == {}


@pytest.mark.parametrize(
    ("objects", "seconds", "reason"),
    [
        ([pod(), service()], 10**8, None),
        ([pod(expires_at="2026-01-01T00:01:00Z"), service()], 59, None),
        ([pod(expires_at="2026-01-01T00:01:00Z"), service()], 60, "it expired at 2026-01-01T00:01:00.000000Z"),
        ([pod(idle_timeout_seconds="30"), service()], 29, None),
        ([pod(idle_timeout_seconds="30"), service()], 30, "it was not used since 2026-01-01T00:00:00.000000Z"),
        ([pod()], 119, None),
        ([pod()], 120, "its Service is missing"),
        ([service()], 119, None),
        ([service()], 120, "its Pod is missing"),
        ([pod(applied_at="2026-01-01T01:00:00Z")], 3600 + 119, None),
        ([pod(confirmed_at="2026-01-01T01:00:00Z")], 3600 + 119, None),
        ([pod(confirmed_at="2026-01-01T01:00:00Z")], 3600 + 120, "its Service is missing"),
        ([{**pod(), "status": {"phase": "Failed"}}, service()], 3599, None),
        ([{**pod(), "status": {"phase": "Succeeded"}}, service()], 3600, "it ended at 2026-01-01T00:00:00.000000Z"),
    ],
)
def test_expired_ended_and_incomplete_sandboxes_are_due_with_a_reason(
    make_settings: MakeSettings, objects: list[dict[str, Any]], seconds: int, reason: str | None
) -> None:
    found = due_of(objects, make_settings(), START + timedelta(seconds=seconds))
    assert [one.reason for one in found] == ([] if reason is None else [reason])
    assert [one.objects for one in found] == ([] if reason is None else [tuple(objects)])


@pytest.mark.parametrize("change", ["managed", "terminating", "label", "name"])
def test_foreign_and_terminating_pods_are_not_due(make_settings: MakeSettings, change: str) -> None:
    expired = pod(expires_at="2026-01-01T00:00:01Z")
    if change == "managed":
        expired["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    elif change == "terminating":
        expired["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:02Z"
    elif change == "label":
        del expired["metadata"]["labels"]["app"]
    else:
        expired["metadata"]["name"] = "sandbox-b"
    assert due_of([expired], make_settings(), START + timedelta(days=1)) == []


@pytest.mark.parametrize("name", recorded_pods())
def test_of_the_recorded_pods_only_ended_ones_are_due(make_settings: MakeSettings, name: str) -> None:
    recorded = copy.deepcopy(recorded_pods()[name])
    recorded["metadata"] |= {"labels": kube.labels_of("x"), "name": kube.pod_name("x")}
    due = due_of([recorded, service("x")], make_settings(), expiry.created_at(recorded) + timedelta(days=30))
    assert bool(due) == (has_ended(recorded) and "deletionTimestamp" not in recorded["metadata"])


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00", "soon"])
def test_times_that_no_lifetime_can_be_added_to_are_ignored(time: str) -> None:
    annotations = {
        kube.APPLIED_AT_ANNOTATION: time,
        kube.USED_ANNOTATION: time,
        kube.EXPIRES_ANNOTATION: time,
        kube.IDLE_ANNOTATION: "999999999",
        kube.CONFIRMED_ANNOTATION: time,
    }
    metadata = {"creationTimestamp": "2026-07-01T10:00:00Z", "annotations": annotations}
    pod = {"kind": "Pod", "metadata": metadata}
    assert expiry.expires_at(pod) == "2058-03-09T11:46:39Z"
    assert expiry.touched_at(pod) == expiry.created_at(pod)


@pytest.mark.parametrize("marked_at", ["2026-01-01T00:00:00Z", "yes", ""])
def test_what_is_marked_as_refused_is_due_whatever_the_mark_says(marked_at: str, make_settings: MakeSettings) -> None:
    objects = [pod(refused_at=marked_at), service()]
    [due] = due_of(objects, make_settings(), START + timedelta(days=1))
    assert due.reason == "its create was refused"
    assert due_of(objects, make_settings(reaper_grace="1"), START + timedelta(seconds=7)) == []
