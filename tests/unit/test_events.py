"""Events of the event stream and their order, with the recorded Pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandboxes.access.accesses import Accesses
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
def informer() -> StillView:
    return StillView()


@pytest.fixture
def broker(informer: StillView, make_settings: Callable[..., Settings], deadlines: Deadlines) -> EventBroker:
    answers = Answers(Accesses(make_settings()))
    informer.changed.connect(answers.forget)
    kubectl = Kubectl(KubectlRunner(Path("/never/started"), (), {}), max_processes=1, max_waiting=1)
    return EventBroker(Cluster(kubectl, informer, "rec", deadlines=deadlines), answers)


async def queued_events(subscriber: Subscriber) -> list[tuple[str, Any]]:
    """Return name and data of all queued events."""
    found: list[tuple[str, Any]] = []
    while True:
        try:
            async with asyncio.timeout(0.05):
                event = await subscriber.next()
        except TimeoutError:
            return found
        found.append((event.name, json.loads(event.data)))


def names(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


async def test_a_subscriber_gets_the_state_and_then_the_events(broker: EventBroker, informer: StillView) -> None:
    informer.put("b")
    informer.put("a")
    subscriber = await broker.join()
    [(name, state)] = await queued_events(subscriber)
    assert name == "state"
    assert [one["sandbox_id"] for one in state["sandboxes"]] == ["a", "b"]
    assert state["count"] == 2

    informer.put("c")
    informer.put("c", pod="pod-running-unready")
    informer.put("c", pod="pod-ready")
    informer.put("c", pod="pod-crash-loop")
    informer.drop("c")
    events = await queued_events(subscriber)
    assert names(events) == ["created", "changed", "ready", "changed", "deleted"]
    assert [one["status"] for _, one in events] == ["Pending", "Running", "Running", "Failed", "NotFound"]
    assert {one["sandbox_id"] for _, one in events} == {"c"}
    assert events[-1][1]["ready"] is False


async def test_event_numbers_increase(broker: EventBroker, informer: StillView) -> None:
    subscriber = await broker.join()
    for number in range(5):
        informer.put(f"s{number}")
    numbers = [(await subscriber.next()).number for _ in range(6)]
    assert numbers == sorted(set(numbers))


async def test_an_unchanged_response_sends_no_event(broker: EventBroker, informer: StillView) -> None:
    informer.put("a")
    subscriber = await broker.join()
    assert names(await queued_events(subscriber)) == ["state"]
    informer.put("a")  # only a new resourceVersion
    assert await queued_events(subscriber) == []


async def test_a_sandbox_that_is_first_seen_ready_sends_created_and_ready(
    broker: EventBroker, informer: StillView
) -> None:
    subscriber = await broker.join()
    informer.put("a", pod="pod-ready")
    assert names(await queued_events(subscriber)) == ["state", "created", "ready"]


async def test_a_recreated_sandbox_sends_deleted_and_created(broker: EventBroker, informer: StillView) -> None:
    informer.put("a", pod="pod-ready", uid="u1")
    subscriber = await broker.join()
    informer.put("a", pod="pod-ready", uid="u2")
    assert names(await queued_events(subscriber)) == ["state", "deleted", "created", "ready"]


async def test_a_terminating_sandbox_sends_deleted_once(broker: EventBroker, informer: StillView) -> None:
    informer.put("a", pod="pod-ready")
    subscriber = await broker.join()
    informer.put("a", pod="pod-terminating")
    informer.drop("a")
    assert names(await queued_events(subscriber)) == ["state", "deleted"]


@pytest.mark.deadlines(expiring=100.0)
async def test_expiring_is_sent_once_and_again_after_a_renewal(broker: EventBroker, informer: StillView) -> None:
    subscriber = await broker.join()
    informer.put("a", expires_at=in_seconds(100.2))
    assert names(await queued_events(subscriber)) == ["state", "created"]

    async def is_sent() -> bool:
        return names(await queued_events(subscriber)) == ["expiring"]

    await until(is_sent)
    informer.put("a", pod="pod-ready", expires_at=(first := in_seconds(98)))
    assert names(await queued_events(subscriber)) == ["ready", "expiring"]
    informer.put("a", pod="pod-running-unready", expires_at=first)
    assert names(await queued_events(subscriber)) == ["changed"]
    informer.put("a", expires_at=in_seconds(1000))
    assert names(await queued_events(subscriber)) == ["changed"]
    informer.put("a", expires_at=in_seconds(50))
    assert names(await queued_events(subscriber)) == ["changed", "expiring"]


async def test_a_late_subscriber_gets_expiring(broker: EventBroker, informer: StillView) -> None:
    informer.put("far", expires_at=in_seconds(1000))
    informer.put("near", expires_at=in_seconds(5))
    for subscriber in [await broker.join(), await broker.join()]:
        events = await queued_events(subscriber)
        assert names(events) == ["state", "expiring"]
        assert events[1][1]["sandbox_id"] == "near"


async def test_an_unparsable_expiry_sends_no_expiring(broker: EventBroker, informer: StillView) -> None:
    subscriber = await broker.join()
    informer.put("a", expires_at="soon")
    assert names(await queued_events(subscriber)) == ["state", "created"]


async def test_a_slow_subscriber_is_dropped_and_the_others_continue(
    broker: EventBroker, informer: StillView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_WAITING", 10)
    slow, quick = await broker.join(), await broker.join()
    for number in range(20):
        informer.put(f"s{number}")
        await quick.next()
    assert slow.is_dropped
    assert slow.ended.is_set()
    assert not quick.ended.is_set()


async def test_a_new_subscriber_after_the_last_one_left_gets_the_whole_state(
    broker: EventBroker, informer: StillView
) -> None:
    subscriber = await broker.join()
    informer.put("a", expires_at=in_seconds(1000))
    broker.leave(subscriber)
    informer.put("b")
    subscriber = await broker.join()
    [(name, state)] = await queued_events(subscriber)
    assert (name, state["count"]) == ("state", 2)


async def test_without_the_live_view_subscribing_is_rejected(make_settings: Callable[..., Settings]) -> None:
    kubectl = Kubectl(KubectlRunner(Path("/never/started"), (), {}), max_processes=1, max_waiting=1)
    with pytest.raises(LiveViewOff):
        await EventBroker(Cluster(kubectl, NoInformer(), "rec"), Answers(Accesses(make_settings()))).join()


@pytest.mark.deadlines(subscribe=0.05)
async def test_subscribing_to_a_stale_informer_times_out(broker: EventBroker, informer: StillView) -> None:
    informer.fresh = False
    with pytest.raises(ClusterUnavailable):
        await broker.join()


async def test_closing_the_broker_ends_its_subscribers_and_rejects_new_ones(broker: EventBroker) -> None:
    subscriber = await broker.join()
    broker.close()
    assert subscriber.ended.is_set()
    assert not subscriber.is_dropped
    with pytest.raises(ClusterUnavailable):
        await broker.join()


async def test_closing_the_broker_rejects_a_waiting_subscriber_immediately(
    broker: EventBroker, informer: StillView
) -> None:
    informer.fresh = False
    joining = asyncio.create_task(broker.join())
    await asyncio.sleep(0)  # let it start
    broker.close()
    async with asyncio.timeout(2):
        with pytest.raises(ClusterUnavailable):
            await joining


async def test_excess_subscribers_are_rejected_until_one_leaves(
    broker: EventBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_READERS", 2)
    first, _ = [await broker.join() for _ in range(2)]
    with pytest.raises(Busy):
        await broker.join()
    broker.leave(first)
    await broker.join()
