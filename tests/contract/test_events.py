"""The event stream, with a real kubectl on devcluster."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.service import events
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.contract.service import URL, Provisioner, create
from tests.contract.views import end_watches
from tests.kubectl import Kubectl
from tests.waiting import until

EVENTS = "/api/events"
Event = tuple[str, dict[str, Any]]


class Stream:
    """A subscriber of the event stream, with all events that it received."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.numbers: list[int] = []
        self.has_ended = False

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Read until the stream ends."""
        fields: dict[str, str] = {}
        try:
            async for raw in response.content:
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                fields[name] = value
                if raw == b"\n" and "event" in fields:
                    self.numbers.append(int(fields["id"]))
                    self.events.append((fields["event"], json.loads(fields["data"])))
                    fields = {}
        except aiohttp.ClientError:
            pass
        self.has_ended = True

    async def until_received(self, count: int) -> None:
        """Wait for this number of events."""
        await until(lambda: len(self.events) >= count)

    def names(self, sandbox_id: str) -> list[str]:
        """Return the names of a sandbox's events."""
        return [name for name, one in self.events if one.get("sandbox_id") == sandbox_id]

    def has(self, name: str, sandbox_id: str) -> Callable[[], bool]:
        """Return a condition: a sandbox has had this event."""
        return lambda: name in self.names(sandbox_id)


@asynccontextmanager
async def subscribed(provisioner: Provisioner) -> AsyncIterator[Stream]:
    """Subscribe during the block."""
    stream = Stream()
    async with provisioner.client.get(EVENTS, read_bufsize=2**22) as response:
        assert response.status == 200, await response.text()
        task = asyncio.create_task(stream.read(response))
        try:
            await until(lambda: stream.events)
            yield stream
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_stream_reports_a_sandbox_from_created_to_deleted(provisioner: Provisioner) -> None:
    await create(provisioner, "before")
    async with subscribed(provisioner) as stream:
        name, state = stream.events[0]
        assert name == "state"
        assert [one["sandbox_id"] for one in state["sandboxes"]] == ["before"]
        made = await create(provisioner)
        await until(stream.has("ready", "a"))
        assert (await provisioner.delete(f"{URL}/a")).status == 200
        await until(stream.has("deleted", "a"))
        names = stream.names("a")
        assert names[0] == "created"
        assert names[-1] == "deleted"
        assert set(names[1:-1]) <= {"changed", "ready"}
        assert names.count("ready") == 1
        assert stream.numbers == sorted(set(stream.numbers))
        last = [one for name, one in stream.events if name == "ready"][-1]
        assert (last["sandbox_url"], last["ready"]) == (made["sandbox_url"], True)
        assert stream.events[-1][1]["status"] == "NotFound"
        for (_, one), (_, other) in zip(stream.events, stream.events[1:], strict=False):
            assert one != other


@pytest.mark.deadlines(watch_pauses=(0.05, 0.1))
async def test_a_restarted_watch_sends_no_event_twice(provisioner: Provisioner, cluster: Cluster) -> None:
    async with subscribed(provisioner) as stream:
        await create(provisioner, wait_seconds=20)
        await until(stream.has("ready", "a"))
        before = len(stream.events)
        await end_watches(cluster)
        await until(lambda: not provisioner.view.is_fresh)
        await until(lambda: provisioner.view.is_fresh)
        await create(provisioner, "marker")
        await until(stream.has("created", "marker"))
        assert stream.events[before:] == [one for one in stream.events[before:] if one[1]["sandbox_id"] == "marker"]


async def test_changes_during_a_watch_outage_are_sent_afterwards(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner, wait_seconds=20)
    async with subscribed(provisioner) as stream:
        await end_watches(cluster)
        await until(lambda: not provisioner.view.is_fresh)
        cluster.set_pod("deer-flow", "sandbox-a", ready=False)
        await until(stream.has("changed", "a"))
        assert stream.names("a") == ["changed"]


@pytest.mark.slow
async def test_a_slow_subscriber_is_disconnected_and_others_continue(
    provisioner: Provisioner,
    cluster: Cluster,
    kubectl: Kubectl,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(events, "MAX_WAITING", 20)
    await create(provisioner, wait_seconds=20)
    # larger than a caller can make it: its events soon fill the buffers of the connection
    long = f"{kube.USER_ANNOTATION}={'u' * 100_000}"
    assert (await kubectl("annotate", "pod", "sandbox-a", "-n", "deer-flow", "--overwrite", long)).rc == 0

    def is_long() -> bool:
        pod = provisioner.view.sandbox("a")[0]
        return pod is not None and len(kube.get_annotations(pod).get(kube.USER_ANNOTATION, "")) == 100_000

    await until(is_long)
    reader, writer = await asyncio.open_connection("127.0.0.1", provisioner.client.port, limit=1024)
    writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"200" in await reader.readline()
    async with subscribed(provisioner) as stream:
        async with asyncio.timeout(60):
            ready = True
            while "the client reads too slowly" not in caplog.text:
                seen, ready = len(stream.events), not ready
                cluster.set_pod("deer-flow", "sandbox-a", ready=ready)
                await stream.until_received(seen + 1)
        await create(provisioner, "last")
        await until(stream.has("created", "last"))
        assert not stream.has_ended
    writer.close()


async def test_sigterm_ends_open_streams_and_waits(cluster: Cluster, tmp_path: Path) -> None:
    cluster.server_takes(6000)
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
    base = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    async with (
        running(*PROVISIONER, environ=environ, log=log) as process,
        aiohttp.ClientSession() as session,
    ):
        await until(healthy(port))
        streams = []
        for _ in range(3):
            response = await session.get(f"{base}{EVENTS}")
            stream = Stream()
            streams.append((stream, asyncio.create_task(stream.read(response))))
        waiting = asyncio.create_task(
            session.post(f"{base}{URL}", json={"sandbox_id": "a", "wait_seconds": 20}, headers={"X-Request-ID": "w"})
        )
        for stream, _ in streams:
            await until(stream.has("changed", "a"))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):  # less than the rest of the wait
            answer = await waiting
            assert await process.wait() == 0
        assert answer.status == 200
        assert (await answer.json())["ready"] is False
        await asyncio.gather(*(task for _, task in streams))
        assert all(stream.has_ended for stream, _ in streams)
    assert log.read_text().count(f"127.0.0.1 GET {EVENTS} 200") == 3
    assert log.read_text().count("event stream to 127.0.0.1 opened") == 3
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
async def test_a_disconnected_subscriber_is_logged_without_a_traceback(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
    log = tmp_path / "log"
    async with running(*PROVISIONER, environ=environ, log=log), aiohttp.ClientSession() as session:
        await until(healthy(port))
        response = await session.get(f"http://127.0.0.1:{port}{EVENTS}")
        assert response.status == 200
        response.close()
        await until(lambda: f"GET {EVENTS} 200" in log.read_text())
    assert "Traceback" not in log.read_text()
