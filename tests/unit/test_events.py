"""What readers of the event stream are told, and in which order; on the recorded Pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.deadlines import Deadlines
from sandboxes.errors import Busy, ClusterUnavailable, LiveViewOff
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.service import events as feed_module
from sandboxes.service.events import EventBroker, Subscriber
from sandboxes.settings import Settings
from sandboxes.status.response import Answers
from tests.informers import StillView
from tests.waiting import until


@pytest.fixture
def view() -> StillView:
    return StillView()


@pytest.fixture
def feed(view: StillView, make_settings: Callable[..., Settings], deadlines: Deadlines) -> EventBroker:
    answers = Answers(make_settings())
    view.changed.connect(answers.forget)
    kubectl = Kubectl(KubectlRunner(Path("/never/started"), (), {}), max_processes=1, max_waiting=1)
    return EventBroker(Cluster(kubectl, view, "rec", deadlines=deadlines), answers)


async def told(reader: Subscriber) -> list[tuple[str, Any]]:
    """Return the names and the data of all that waits."""
    found: list[tuple[str, Any]] = []
    while True:
        try:
            async with asyncio.timeout(0.05):
                event = await reader.next()
        except TimeoutError:
            return found
        found.append((event.name, json.loads(event.data)))


def names(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


async def test_a_subscriber_gets_the_state_and_then_the_events(feed: EventBroker, view: StillView) -> None:
    view.put("b")
    view.put("a")
    reader = await feed.join()
    [(name, state)] = await told(reader)
    assert name == "state"
    assert [one["sandbox_id"] for one in state["sandboxes"]] == ["a", "b"]
    assert state["count"] == 2

    view.put("c")
    view.put("c", pod="pod-running-unready")
    view.put("c", pod="pod-ready")
    view.put("c", pod="pod-crash-loop")
    view.drop("c")
    events = await told(reader)
    assert names(events) == ["created", "changed", "ready", "changed", "deleted"]
    assert [one["status"] for _, one in events] == ["Pending", "Running", "Running", "Failed", "NotFound"]
    assert {one["sandbox_id"] for _, one in events} == {"c"}
    assert events[-1][1]["ready"] is False


async def test_event_numbers_increase(feed: EventBroker, view: StillView) -> None:
    reader = await feed.join()
    for number in range(5):
        view.put(f"s{number}")
    numbers = [(await reader.next()).number for _ in range(6)]
    assert numbers == sorted(set(numbers))


async def test_an_unchanged_response_sends_no_event(feed: EventBroker, view: StillView) -> None:
    view.put("a")
    reader = await feed.join()
    assert names(await told(reader)) == ["state"]
    view.put("a")  # a new resourceVersion, and all the same
    assert await told(reader) == []


async def test_a_sandbox_that_is_first_seen_ready_sends_created_and_ready(feed: EventBroker, view: StillView) -> None:
    reader = await feed.join()
    view.put("a", pod="pod-ready")
    assert names(await told(reader)) == ["state", "created", "ready"]


async def test_a_recreated_sandbox_sends_deleted_and_created(feed: EventBroker, view: StillView) -> None:
    view.put("a", pod="pod-ready", uid="u1")
    reader = await feed.join()
    view.put("a", pod="pod-ready", uid="u2")
    assert names(await told(reader)) == ["state", "deleted", "created", "ready"]


async def test_a_terminating_sandbox_sends_deleted_once(feed: EventBroker, view: StillView) -> None:
    view.put("a", pod="pod-ready")
    reader = await feed.join()
    view.put("a", pod="pod-terminating")
    view.drop("a")
    assert names(await told(reader)) == ["state", "deleted"]


@pytest.mark.deadlines(expiring=100.0)
async def test_expiring_is_sent_once_and_again_after_a_renewal(feed: EventBroker, view: StillView) -> None:
    reader = await feed.join()
    view.put("a", expires_at=in_seconds(100.2))
    assert names(await told(reader)) == ["state", "created"]

    async def is_told() -> bool:
        return names(await told(reader)) == ["expiring"]

    await until(is_told)
    view.put("a", pod="pod-ready", expires_at=(first := in_seconds(98)))
    assert names(await told(reader)) == ["ready", "expiring"]
    view.put("a", pod="pod-running-unready", expires_at=first)
    assert names(await told(reader)) == ["changed"]
    view.put("a", expires_at=in_seconds(1000))
    assert names(await told(reader)) == ["changed"]
    view.put("a", expires_at=in_seconds(50))
    assert names(await told(reader)) == ["changed", "expiring"]


async def test_a_late_subscriber_gets_expiring(feed: EventBroker, view: StillView) -> None:
    view.put("far", expires_at=in_seconds(1000))
    view.put("near", expires_at=in_seconds(5))
    for reader in [await feed.join(), await feed.join()]:
        events = await told(reader)
        assert names(events) == ["state", "expiring"]
        assert events[1][1]["sandbox_id"] == "near"


async def test_an_unparsable_expiry_sends_no_expiring(feed: EventBroker, view: StillView) -> None:
    reader = await feed.join()
    view.put("a", expires_at="soon")
    assert names(await told(reader)) == ["state", "created"]


async def test_a_slow_subscriber_is_dropped_and_the_others_continue(
    feed: EventBroker, view: StillView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_WAITING", 10)
    slow, quick = await feed.join(), await feed.join()
    for number in range(20):
        view.put(f"s{number}")
        await quick.next()
    assert slow.is_dropped
    assert slow.ended.is_set()
    assert not quick.ended.is_set()


async def test_a_new_subscriber_after_the_last_one_left_gets_the_whole_state(
    feed: EventBroker, view: StillView
) -> None:
    reader = await feed.join()
    view.put("a", expires_at=in_seconds(1000))
    feed.leave(reader)
    view.put("b")
    reader = await feed.join()
    [(name, state)] = await told(reader)
    assert (name, state["count"]) == ("state", 2)


async def test_without_the_live_view_subscribing_is_rejected(make_settings: Callable[..., Settings]) -> None:
    kubectl = Kubectl(KubectlRunner(Path("/never/started"), (), {}), max_processes=1, max_waiting=1)
    with pytest.raises(LiveViewOff):
        await EventBroker(Cluster(kubectl, NoInformer(), "rec"), Answers(make_settings())).join()


@pytest.mark.deadlines(subscribe=0.05)
async def test_subscribing_to_a_stale_informer_times_out(feed: EventBroker, view: StillView) -> None:
    view.fresh = False
    with pytest.raises(ClusterUnavailable):
        await feed.join()


async def test_closing_the_broker_ends_its_subscribers_and_rejects_new_ones(feed: EventBroker) -> None:
    reader = await feed.join()
    feed.close()
    assert reader.ended.is_set()
    assert not reader.is_dropped
    with pytest.raises(ClusterUnavailable):
        await feed.join()


async def test_closing_the_broker_rejects_a_waiting_subscriber_immediately(feed: EventBroker, view: StillView) -> None:
    view.fresh = False
    joining = asyncio.create_task(feed.join())
    await asyncio.sleep(0)  # it has begun
    feed.close()
    async with asyncio.timeout(2):
        with pytest.raises(ClusterUnavailable):
            await joining


async def test_excess_subscribers_are_rejected_until_one_leaves(
    feed: EventBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_READERS", 2)
    first, _ = [await feed.join() for _ in range(2)]
    with pytest.raises(Busy):
        await feed.join()
    feed.leave(first)
    await feed.join()
