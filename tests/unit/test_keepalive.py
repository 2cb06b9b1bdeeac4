"""When keepalive writes a use of a sandbox, and retries after a failed write."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.errors import ObjectsChanged, PatchForbidden, ServerFailed
from sandboxes.kubectl.client import Kubectl
from sandboxes.service.keepalive import Uses
from tests.fakes import FakeCluster
from tests.waiting import until

Write = Callable[[dict[str, str]], Awaitable[None]]


def uses_written_by(write: Write) -> Uses:
    class Written(Cluster):
        async def annotate(self, obj: dict[str, Any], annotations: dict[str, str], *, manager: str) -> dict[str, Any]:
            assert manager == "activity"
            await write(annotations)
            return obj

    return Uses(Written(Kubectl(FakeCluster(), max_processes=1, max_waiting=1), NoInformer(), "deer-flow"))


def uses_whose_first_write_waits() -> tuple[Uses, list[str], asyncio.Future[None]]:
    """Return the uses, the list of written timestamps, and the future that the first write awaits."""
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    written: list[str] = []

    async def write(annotations: dict[str, str]) -> None:
        written.append(annotations[kube.USED_ANNOTATION])
        if len(written) == 1:
            await first

    return uses_written_by(write), written, first


def pod_unused_for(seconds: int, idle_timeout: int) -> dict[str, Any]:
    created = expiry.present() - timedelta(seconds=seconds)
    annotations = expiry.marks_of(0, idle_timeout, created)
    return {"metadata": {"uid": "u", "creationTimestamp": created.isoformat(), "annotations": annotations}}


async def test_a_use_noted_while_a_write_failed_is_written_immediately() -> None:
    uses, written, first = uses_whose_first_write_waits()
    pod = pod_unused_for(595, idle_timeout=600)
    failing = asyncio.create_task(uses.note(pod))
    await until(lambda: len(written) == 1)
    assert await uses.note(pod) is pod  # returns while the first is still being written
    latest = uses.latest(pod)
    first.set_exception(ServerFailed("down"))
    with pytest.raises(ServerFailed):
        await failing
    await until(lambda: len(written) == 2)
    assert latest is not None
    assert written[1] == expiry.text_of(latest)


async def test_uses_shortly_after_a_write_are_written_at_shutdown() -> None:
    written: list[str] = []

    async def write(annotations: dict[str, str]) -> None:
        written.append(annotations[kube.USED_ANNOTATION])

    uses = uses_written_by(write)
    pod = pod_unused_for(100, idle_timeout=600)
    await uses.note(pod)
    assert len(written) == 1
    fresh = pod_unused_for(5, idle_timeout=600)
    await uses.note(fresh)
    assert len(written) == 1
    assert uses.latest(fresh) is not None
    await uses.finish()
    assert len(written) == 2


async def test_a_use_noted_during_the_final_write_is_written_too() -> None:
    uses, written, first = uses_whose_first_write_waits()
    pod = pod_unused_for(5, idle_timeout=600)
    await uses.note(pod)
    finishing = asyncio.create_task(uses.finish())
    await until(lambda: len(written) == 1)
    assert await uses.note(pod) is pod
    latest = uses.latest(pod)
    assert latest is not None
    first.set_result(None)
    await finishing
    assert written[1:] == [expiry.text_of(latest)]
    assert uses.latest(pod) is None


async def test_uses_of_a_deleted_sandbox_are_discarded(caplog: pytest.LogCaptureFixture) -> None:
    async def write(_annotations: dict[str, str]) -> None:
        raise ObjectsChanged("it is another one by now")

    uses = uses_written_by(write)
    pod = pod_unused_for(5, idle_timeout=600)
    await uses.note(pod)
    await uses.finish()
    assert uses.latest(pod) is None
    assert "could not be written" not in caplog.text


async def test_traffic_is_written_in_the_background_at_most_once_a_minute() -> None:
    written: list[str] = []

    async def write(annotations: dict[str, str]) -> None:
        written.append(annotations[kube.USED_ANNOTATION])

    uses = uses_written_by(write)
    pod = pod_unused_for(100, idle_timeout=600)
    uses.note_later(pod)
    uses.note_later(pod)
    assert uses.latest(pod) is not None
    await until(lambda: len(written) == 1)
    await until(lambda: uses.latest(pod) is None)
    fresh = pod_unused_for(5, idle_timeout=600)
    uses.note_later(fresh)
    await asyncio.sleep(0)
    assert len(written) == 1
    await uses.finish()
    assert len(written) == 2
    uses.note_later(pod)
    assert uses.latest(pod) is None, "nothing is started any more"


async def test_without_the_right_to_patch_traffic_is_not_recorded_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[str] = []

    async def write(annotations: dict[str, str]) -> None:
        tried.append(annotations[kube.USED_ANNOTATION])
        raise PatchForbidden("The provisioner lacks the right to patch pods in the cluster")

    uses = uses_written_by(write)
    pod = pod_unused_for(100, idle_timeout=600)
    uses._deadlines = dataclasses.replace(uses._deadlines, patch_forbidden=0.0)  # noqa: SLF001 - no minute's wait
    for attempt in (1, 2):
        uses.note_later(pod)
        await until(lambda: len(tried) == attempt and uses.latest(pod) is None)  # noqa: B023 - awaited here
    uses._deadlines = dataclasses.replace(uses._deadlines, patch_forbidden=60.0)  # noqa: SLF001
    uses.note_later(pod)
    await until(lambda: len(tried) == 3 and uses.latest(pod) is None)
    uses.note_later(pod)
    assert uses.latest(pod) is None
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "The provisioner lacks the right to patch pods in the cluster, so uses do not put off the end of idle sandboxes"
    )


async def test_a_sandbox_without_an_idle_timeout_is_never_written_for_traffic() -> None:
    async def write(_annotations: dict[str, str]) -> None:
        raise AssertionError("nothing to write")

    uses = uses_written_by(write)
    pod = pod_unused_for(100, idle_timeout=0)
    uses.note_later(pod)
    assert uses.latest(pod) is None
