"""Garbage collections while the live view changes: a full one stops the service."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Callable, Iterator

import pytest

from sandboxes.cli import collect_old_objects_rarely
from sandboxes.cluster.cache import ResourceCache
from sandboxes.kubectl.raw import sandboxes_of
from tests.record import watch_events

PODS = sandboxes_of("rec", "Pod")


@pytest.fixture
def thresholds() -> Iterator[None]:
    """Restore the thresholds, and leave the objects of other tests out."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.collect()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def full_collections(work: Callable[[], None]) -> int:
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    try:
        work()
    finally:
        gc.callbacks.remove(note)
    return found.count(2)


def cache_pods() -> None:
    """Read the events of 3,000 new Pods."""
    cache = ResourceCache(lambda _old, _new: None)
    cache.begin_list()
    cache.end_list(1, 0.0)
    pod = copy.deepcopy(
        next(event["object"] for event in watch_events() if "containerStatuses" in event["object"]["status"])
    )
    pod["metadata"] |= {"name": "pod-NUMBER", "resourceVersion": "NUMBER"}
    line = json.dumps({"type": "ADDED", "object": pod})
    for number in range(2, 3002):
        cache.apply_event(PODS.read_event(line.replace("NUMBER", str(number)).encode()), float(number))
    assert len(cache.objects) == 3000


@pytest.mark.usefixtures("thresholds")
def test_three_thousand_cached_pods_cause_no_full_collection() -> None:
    assert full_collections(cache_pods) > 0
    collect_old_objects_rarely()
    assert full_collections(cache_pods) == 0
