"""Touches that are not written to the cluster yet prevent reaping by this process."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from sandboxes import errors, expiry
from sandboxes import objects as kube
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.service.reaper import Reaper
from tests.api.conftest import URL, Client
from tests.fakes import FakeCluster
from tests.waiting import until

IDLE_TIMEOUT = 600
# Seconds after the creation: a tenth of a second before a use is due to be written.
USED = 59.9
IDLE_WITHOUT_THE_USE = IDLE_TIMEOUT + 10


class Sandbox:
    """A sandbox, and a clock that tests set to a number of seconds after its creation."""

    def __init__(self, client: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = client
        self._cluster = cluster
        self._monkeypatch = monkeypatch

    @property
    def reaper(self) -> Reaper:
        return self._client.app[SANDBOX_SERVICE].reaper

    def set_clock(self, seconds: float) -> None:
        pod = self._cluster.pod("a")
        assert pod is not None
        time = expiry.created_at(pod) + timedelta(seconds=seconds)
        self._monkeypatch.setattr(expiry, "present", lambda: time)

    async def touch(self) -> int:
        return (await self._client.post(f"{URL}/a/touch")).status

    def exists(self) -> bool:
        return self._cluster.pod("a") is not None and self._cluster.service("a") is not None

    def use_is_written(self) -> bool:
        pod = self._cluster.pod("a")
        return pod is not None and kube.USED_ANNOTATION in pod["metadata"]["annotations"]

    async def is_reaped(self) -> bool:
        return bool(await self.reaper.round(dry_run=False)) and not self.exists()


@pytest.fixture
async def sandbox(client: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    body = {"sandbox_id": "a", "idle_timeout_seconds": IDLE_TIMEOUT}
    assert (await client.post(URL, json=body)).status == 200
    cluster.calls.clear()
    return Sandbox(client, cluster, monkeypatch)


@pytest.mark.deadlines(use_retry=3600)
async def test_an_unwritten_use_prevents_reaping(
    sandbox: Sandbox,
    client: Client,
    cluster: FakeCluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.set_clock(USED)
    cluster.answer_next("apply", "refused", times=1 + len(errors.ConnectionFailed.pauses))
    with caplog.at_level(logging.WARNING, logger="sandboxes.service.keepalive"):
        assert await sandbox.touch() == 200
        await until(lambda: "the last use of a sandbox could not be written" in caplog.text)
    sandbox.set_clock(IDLE_WITHOUT_THE_USE)
    assert not await sandbox.is_reaped()
    assert sandbox.exists()
    assert not sandbox.use_is_written()

    await client.app[SANDBOX_SERVICE].finish()
    assert sandbox.use_is_written()
    assert not await sandbox.is_reaped()
    sandbox.set_clock(USED + IDLE_TIMEOUT + 1)
    assert await sandbox.is_reaped()


@pytest.mark.deadlines(use_retry=3600)
async def test_an_unwritten_use_expires_after_the_idle_timeout(
    sandbox: Sandbox, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.set_clock(USED)
    cluster.answer_next("apply", "refused", times=1 + len(errors.ConnectionFailed.pauses))
    assert await sandbox.touch() == 200
    await until(lambda: "the last use of a sandbox could not be written" in caplog.text)
    sandbox.set_clock(USED + IDLE_TIMEOUT + 1)
    assert await sandbox.is_reaped()


async def test_a_use_that_is_being_written_prevents_reaping(sandbox: Sandbox, cluster: FakeCluster) -> None:
    sandbox.set_clock(USED)
    hold = cluster.hold_next("apply")
    assert await sandbox.touch() == 200
    await until(lambda: cluster.verbs()["apply"] == 1)
    sandbox.set_clock(IDLE_WITHOUT_THE_USE)
    assert not await sandbox.is_reaped()
    assert sandbox.exists()
    hold.set()
    await until(sandbox.use_is_written)
    assert not await sandbox.is_reaped()


async def test_a_use_between_the_check_and_the_delete_prevents_reaping(sandbox: Sandbox, cluster: FakeCluster) -> None:
    sandbox.set_clock(IDLE_WITHOUT_THE_USE)
    expired = await sandbox.reaper.due()
    assert len(expired) == 1
    hold = cluster.hold_next("apply")
    first = asyncio.create_task(sandbox.touch())
    await until(lambda: cluster.verbs()["apply"] == 1)
    assert await sandbox.touch() == 200  # shares the write of the first touch
    assert await sandbox.reaper.reap(expired) == []
    assert sandbox.exists()
    hold.set()
    assert await first == 200
    assert sandbox.use_is_written()
