"""The cache of one kind, by traces of events of an API server and of responses to own calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxes.cluster.cache import ResourceCache, WentBack
from sandboxes.kubectl.raw import Event, EventType, sandboxes_of
from sandboxes.objects import KubeObject
from tests.record import case

PODS = sandboxes_of("rec3", "Pod")


def pod(version: int, *, name: str = "a", uid: str = "u1", is_ending: bool = False) -> KubeObject:
    metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(version)}
    if is_ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"kind": "Pod", "metadata": metadata}


class Cache(ResourceCache):
    """A cache that records the changes that it reports, with short methods for events and lists."""

    def __init__(self) -> None:
        super().__init__(lambda old, new: self.changes.append((old, new)))
        self.changes: list[tuple[KubeObject | None, KubeObject | None]] = []

    def list(self, version: int, *objects: KubeObject, began: float = 1.0) -> None:
        self.begin_list()
        self.add_page(objects)
        self.end_list(version, began)

    def send(self, event: EventType, obj: KubeObject, *, now: float = 2.0) -> None:
        self.apply_event(Event(event, obj, int(obj["metadata"]["resourceVersion"])), now)

    def bookmark(self, version: int, *, now: float = 2.0) -> None:
        self.apply_event(Event("BOOKMARK", {}, version), now)

    @property
    def cached(self) -> dict[str, tuple[str, int]]:
        metadata = [obj["metadata"] for obj in self.objects.values()]
        return {one["name"]: (one["uid"], int(one["resourceVersion"])) for one in metadata}

    @property
    def pending(self) -> tuple[dict[str, int], dict[str, int]]:
        """State kept until the watch reports it: versions ahead of the watch, and uids being deleted."""
        return self._ahead, self._ending


@pytest.fixture
def cache() -> Cache:
    """Return a cache whose list of version 10 had the Pod a in version 5."""
    cache = Cache()
    cache.list(10, pod(5))
    return cache


def recorded_events(name: str) -> list[Event]:
    return [PODS.read_event(json.dumps(line).encode()) for line in case(name).stdout]


def test_a_list_and_later_events_update_the_cache(cache: Cache) -> None:
    assert (cache.cached, cache.version) == ({"a": ("u1", 5)}, 10)
    cache.send("ADDED", pod(11, name="b", uid="u2"))
    cache.send("MODIFIED", pod(12))
    assert (cache.cached, cache.version) == ({"a": ("u1", 12), "b": ("u2", 11)}, 12)
    cache.send("DELETED", pod(13))
    assert (cache.cached, cache.version) == ({"b": ("u2", 11)}, 13)


@pytest.mark.parametrize("version", [9, 10])
def test_a_repeated_event_is_ignored(cache: Cache, version: int) -> None:
    cache.send("DELETED", pod(version))
    cache.send("ADDED", pod(version, name="b"))
    assert (cache.cached, cache.version) == ({"a": ("u1", 5)}, 10)


def test_an_own_write_is_cached_immediately_and_not_reverted_by_an_older_event(cache: Cache) -> None:
    cache.note(pod(14))
    cache.send("MODIFIED", pod(12))
    assert cache.cached == {"a": ("u1", 14)}
    cache.send("MODIFIED", pod(14))
    cache.send("MODIFIED", pod(15))
    assert cache.cached == {"a": ("u1", 15)}
    assert cache.pending == ({}, {})


def test_a_late_response_to_a_write_does_not_restore_a_deleted_object(cache: Cache) -> None:
    cache.send("MODIFIED", pod(12))
    cache.send("DELETED", pod(13))
    cache.note(pod(12))
    assert cache.cached == {}


def test_a_late_response_during_a_list_does_not_restore_a_deleted_object(cache: Cache) -> None:
    cache.send("DELETED", pod(13))
    cache.begin_list()
    cache.note(pod(12))
    assert cache.cached == {}


def test_a_response_older_than_the_cached_version_is_ignored(cache: Cache) -> None:
    cache.note(pod(14))
    cache.note(pod(13))
    assert cache.cached == {"a": ("u1", 14)}


def test_a_deleted_object_is_hidden_until_the_watch_reports_its_deletion(cache: Cache) -> None:
    cache.note_end(pod(5))
    assert cache.cached == {}
    cache.send("MODIFIED", pod(11))
    cache.note(pod(12))
    assert cache.cached == {}
    cache.send("MODIFIED", pod(13, is_ending=True))
    assert cache.cached == {"a": ("u1", 13)}
    cache.send("DELETED", pod(14, is_ending=True))
    assert cache.cached == {}
    assert cache.pending == ({}, {})


def test_a_delete_response_after_the_deleted_event_leaves_no_state(cache: Cache) -> None:
    cache.send("DELETED", pod(11))
    cache.note_end(pod(5))
    assert cache.cached == {}
    assert cache.pending == ({}, {})


def test_a_delete_of_an_uncached_object_hides_its_later_events(cache: Cache) -> None:
    cache.note_end(pod(12, name="b", uid="u2"))
    cache.send("ADDED", pod(12, name="b", uid="u2"))
    assert cache.cached == {"a": ("u1", 5)}
    cache.send("DELETED", pod(13, name="b", uid="u2"))
    assert cache.pending == ({}, {})


def test_a_recreated_object_stays_when_the_old_one_ends(cache: Cache) -> None:
    cache.note_end(pod(5))
    cache.note(pod(13, uid="u2"))
    cache.send("MODIFIED", pod(11, is_ending=True))
    cache.send("DELETED", pod(12, is_ending=True))
    assert cache.cached == {"a": ("u2", 13)}
    cache.send("ADDED", pod(13, uid="u2"))
    assert cache.cached == {"a": ("u2", 13)}
    assert cache.pending == ({}, {})


def test_the_old_object_stays_hidden_after_the_recreated_one_was_deleted(cache: Cache) -> None:
    cache.note(pod(14, uid="u2"))
    cache.note_end(pod(14, uid="u2"))
    cache.send("MODIFIED", pod(11))
    assert cache.cached == {}
    cache.note(pod(12))
    cache.send("MODIFIED", pod(12, is_ending=True))
    assert cache.cached == {}
    cache.send("DELETED", pod(13, is_ending=True))
    cache.send("ADDED", pod(14, uid="u2"))
    cache.send("DELETED", pod(15, uid="u2"))
    assert cache.cached == {}
    assert cache.pending == ({}, {})


def test_deleting_an_uncached_recreated_object_removes_the_old_one(cache: Cache) -> None:
    cache.note_end(pod(14, uid="u2"))
    assert cache.cached == {}
    cache.list(15, pod(14, uid="u2"))
    cache.send("DELETED", pod(16, uid="u2"))
    assert cache.cached == {}
    assert cache.pending == ({}, {})


def test_deleting_the_old_object_keeps_the_recreated_one(cache: Cache) -> None:
    cache.note(pod(14, uid="u2"))
    cache.note_end(pod(5))
    cache.note_end(pod(12))
    assert cache.cached == {"a": ("u2", 14)}


def test_a_late_list_does_not_revert_newer_responses(cache: Cache) -> None:
    cache.begin_list()
    cache.note(pod(14))
    cache.note(pod(13, name="b", uid="u2"))
    cache.add_page([pod(12)])
    cache.end_list(12, 1.0)
    assert cache.cached == {"a": ("u1", 14), "b": ("u2", 13)}


def test_a_late_list_does_not_restore_a_deleted_object(cache: Cache) -> None:
    cache.begin_list()
    cache.note_end(pod(5))
    cache.add_page([pod(5)])
    cache.end_list(12, 1.0)
    assert cache.cached == {}
    cache.send("DELETED", pod(13))
    assert cache.pending == ({}, {})


def test_a_list_ends_the_wait_for_earlier_deletions(cache: Cache) -> None:
    cache.note_end(pod(5))
    cache.list(20)
    assert cache.pending == ({}, {})


def test_a_deletion_newer_than_the_list_is_still_awaited(cache: Cache) -> None:
    cache.begin_list()
    cache.note(pod(14, name="b", uid="u2"))
    cache.note_end(pod(14, name="b", uid="u2"))
    cache.end_list(12, 1.0)
    cache.send("ADDED", pod(14, name="b", uid="u2"))
    assert cache.cached == {}
    cache.send("DELETED", pod(15, name="b", uid="u2"))
    assert cache.pending == ({}, {})


def test_a_relist_removes_objects_that_it_does_not_contain(cache: Cache) -> None:
    cache.changes.clear()
    known = cache.objects["a"]
    cache.list(20, pod(15, name="b", uid="u2"))
    assert cache.cached == {"b": ("u2", 15)}
    assert cache.changes == [(None, cache.objects["b"]), (known, None)]


def test_a_relist_keeps_objects_of_the_same_version(cache: Cache) -> None:
    cache.changes.clear()
    known = cache.objects["a"]
    cache.list(20, pod(5))
    assert cache.objects["a"] is known
    assert cache.changes == []


def test_a_relist_replaces_an_object_whose_uid_changed(cache: Cache) -> None:
    known = cache.objects["a"]
    cache.list(20, pod(15, uid="u2"))
    assert cache.cached == {"a": ("u2", 15)}
    assert cache.changes[-1] == (known, cache.objects["a"])


def test_a_paged_list_removes_objects_only_after_its_last_page(cache: Cache) -> None:
    cache.send("ADDED", pod(11, name="z", uid="u9"))
    cache.begin_list()
    cache.add_page([pod(12, name="b", uid="u2")])
    assert cache.cached == {"a": ("u1", 5), "b": ("u2", 12), "z": ("u9", 11)}
    assert (cache.version, cache.proven_at) == (None, None)
    cache.add_page([pod(11, name="z", uid="u9")])
    cache.end_list(12, 1.0)
    assert cache.cached == {"b": ("u2", 12), "z": ("u9", 11)}


def test_pages_of_a_failed_list_are_discarded(cache: Cache) -> None:
    cache.begin_list()
    cache.add_page([pod(5)])
    cache.list(20)
    assert cache.cached == {}


def test_a_bookmark_advances_the_version_and_ends_the_wait_for_own_writes(cache: Cache) -> None:
    cache.note(pod(14))
    cache.bookmark(20)
    assert (cache.version, cache.cached) == (20, {"a": ("u1", 14)})
    assert cache.pending == ({}, {})


def test_a_bookmark_with_an_older_version_is_rejected(cache: Cache) -> None:
    with pytest.raises(WentBack, match="9 after 10"):
        cache.bookmark(9)
    cache.bookmark(10)


def test_a_list_confirms_the_cache_as_of_its_start() -> None:
    cache = Cache()
    assert cache.proven_at is None
    cache.list(10, began=3.0)
    assert cache.proven_at == 3.0


def test_each_new_event_confirms_the_cache(cache: Cache) -> None:
    cache.send("MODIFIED", pod(11), now=4.0)
    assert cache.proven_at == 4.0
    cache.send("MODIFIED", pod(11), now=5.0)
    assert cache.proven_at == 4.0
    cache.bookmark(11, now=6.0)
    assert cache.proven_at == 6.0
    cache.ended_in_time(7.0)
    assert cache.proven_at == 7.0


def test_after_a_failure_a_bookmark_confirms_the_cache_and_an_event_does_not(cache: Cache) -> None:
    cache.failed()
    assert (cache.proven_at, cache.version) == (None, 10)
    cache.send("MODIFIED", pod(11), now=4.0)
    assert (cache.proven_at, cache.cached) == (None, {"a": ("u1", 11)})
    cache.bookmark(12, now=5.0)
    assert cache.proven_at == 5.0


def test_after_a_failure_a_watch_that_ends_in_time_confirms_the_cache(cache: Cache) -> None:
    cache.failed()
    cache.ended_in_time(5.0)
    assert cache.proven_at == 5.0


def test_a_deletion_is_reported_with_the_last_version(cache: Cache) -> None:
    last = pod(11)
    cache.send("DELETED", last)
    assert cache.changes[-1] == (last, None)


def test_the_recorded_watch_leaves_the_recorded_final_state() -> None:
    cache = Cache()
    cache.list(315782)
    seen = []
    for event in recorded_events("raw-watch"):
        cache.apply_event(event, 2.0)
        seen.append(set(cache.objects))
    assert {name: version for name, (_, version) in cache.cached.items()} == {"raw-b": 315815}
    assert (cache.version, cache.pending) == (315842, ({}, {}))
    assert seen == [{"raw-a"}] * 13 + [set()] + [{"raw-b"}] * 8


def test_recorded_initial_events_do_not_change_a_current_cache() -> None:
    cache = Cache()
    cache.list(315782)
    for event in recorded_events("raw-watch"):
        cache.apply_event(event, 2.0)
    cache.changes.clear()
    for event in recorded_events("raw-watch-initial-events"):
        cache.apply_event(event, 3.0)
    assert cache.changes == []
    assert (cache.version, cache.proven_at) == (315848, 3.0)


@pytest.mark.parametrize("is_bookmark", [True, False])
def test_own_writes_are_forgotten_when_versions_go_back(cache: Cache, is_bookmark: bool) -> None:
    cache.bookmark(900)
    cache.note(pod(950, name="lost", uid="u2"))
    cache.note_end(pod(5))
    send = cache.bookmark if is_bookmark else cache.list
    with pytest.raises(WentBack):
        send(20)
    cache.list(20, pod(5))
    assert cache.cached == {"a": ("u1", 5)}
    assert cache.pending == ({}, {})
    cache.note(pod(21))
    assert cache.cached == {"a": ("u1", 21)}
