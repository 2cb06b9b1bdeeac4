"""When the informer may answer, for whom, and what live reads and unanswered deletes change about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.cluster.cache import ResourceCache
from sandboxes.cluster.informer import KINDS, Informer
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.raw import Event
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.objects import KubeObject

MAX_AGE = 60.0


class View(Informer):
    """An informer whose lists and watches are a test's own words."""

    def __init__(self) -> None:
        runner = KubectlRunner(Path("/never/started"), (), {})
        super().__init__(Kubectl(runner, max_processes=1, max_waiting=1), runner, "rec", max_age=MAX_AGE)

    def cache(self, kind: str) -> ResourceCache:
        return self._caches[kind]

    def list(self, *objects: KubeObject, version: int = 10, began: float | None = None, kinds: Any = KINDS) -> None:
        for kind in kinds:
            self.cache(kind).begin_list()
            self.cache(kind).add_page(obj for obj in objects if obj["kind"] == kind)
            self.cache(kind).end_list(version, now() if began is None else began)
        self._wake()

    def end_watches(self, kinds: Iterable[str] = KINDS) -> None:
        for kind in kinds:
            self.cache(kind).ended_in_time(now())

    def ids(self) -> set[str | None]:
        return {kube.sandbox_id_of(pod) for pod, _ in self.sandboxes()}


def now() -> float:
    return asyncio.get_running_loop().time()


def one(kind: str, version: int, sandbox_id: str = "a", uid: str = "", **labels: str) -> KubeObject:
    name = kube.pod_name(sandbox_id) if kind == "Pod" else kube.service_name(sandbox_id)
    metadata = {"name": name, "uid": uid or name, "resourceVersion": str(version)}
    return {"kind": kind, "metadata": {**metadata, "labels": labels or kube.labels_of(sandbox_id)}}


def pair(sandbox_id: str = "a") -> list[KubeObject]:
    return [one("Pod", 5, sandbox_id), one("Service", 6, sandbox_id)]


async def later() -> None:
    """Let the clock go on, however coarse it is."""
    began = now()
    while now() <= began:
        await asyncio.sleep(0)


@pytest.fixture
async def view() -> View:
    """Return a view that has just listed the sandbox a."""
    view = View()
    view.list(*pair())
    await later()
    return view


async def test_the_informer_is_fresh_only_after_both_kinds_were_listed() -> None:
    view = View()
    assert (view.is_fresh, view.age) == (False, float("inf"))
    view.list(kinds=["Pod"])
    assert (view.is_fresh, view.age) == (False, float("inf"))
    view.list(kinds=["Service"])
    assert view.is_fresh
    assert view.age < MAX_AGE


async def test_the_informers_age_is_that_of_its_older_cache(view: View) -> None:
    view.list(kinds=["Service"], began=now() - MAX_AGE - 1)
    assert not view.is_fresh
    assert MAX_AGE < view.age < float("inf")
    view.cache("Service").failed()
    assert view.age == float("inf")


async def test_becomes_fresh_returns_when_both_kinds_were_listed() -> None:
    view = View()
    waits = asyncio.create_task(view.becomes_fresh())
    await asyncio.sleep(0)
    view.list(kinds=["Pod"])
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waits.done()
    view.list(kinds=["Service"])
    await waits


async def test_the_informer_is_certain_only_while_it_is_fresh(view: View) -> None:
    assert view.is_certain("a")
    assert view.is_certain_of_all
    view.cache("Pod").failed()
    assert not view.is_certain("a")
    assert not view.is_certain_of_all


async def test_a_doubt_affects_its_sandbox_and_lists_only(view: View) -> None:
    view.doubt("a")
    assert view.is_fresh
    assert [view.is_certain("a"), view.is_certain("b"), view.is_certain_of_all] == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_doubt_lasts_until_both_kinds_were_confirmed_after_it(view: View, kind: str) -> None:
    view.doubt("a")
    await later()
    view.end_watches([kind])
    assert not view.is_certain("a")
    view.end_watches()
    assert view.is_certain("a")
    assert view.is_certain_of_all


async def test_a_list_started_before_a_doubt_does_not_end_it(view: View) -> None:
    began = now()
    await later()
    view.doubt("a")
    view.list(*pair(), version=20, began=began)
    assert not view.is_certain("a")
    await later()
    view.list(version=30)
    assert view.is_certain("a")


async def test_a_failed_watch_keeps_a_doubt(view: View) -> None:
    view.doubt("a")
    await later()
    view.end_watches()
    view.cache("Pod").failed()
    assert not view.is_certain("a")


async def test_a_live_read_after_a_doubt_ends_it(view: View) -> None:
    view.doubt("a")
    before = view.before_read("a")
    view.note_read("a", pair(), before)
    assert view.is_certain("a")


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_live_read_started_before_a_doubt_does_not_end_it(view: View, is_first: bool) -> None:
    if not is_first:
        view.doubt("a")
        await later()
    before = view.before_read("a")
    view.doubt("a")
    view.note_read("a", pair(), before)
    assert not view.is_certain("a")


async def test_a_live_read_removes_cached_objects_that_it_does_not_find(view: View) -> None:
    view.note_read("a", [one("Service", 6)], view.before_read("a"))
    assert view.sandbox("a") == (None, one("Service", 6))
    view.note_read("a", [], view.before_read("a"))
    assert view.sandbox("a") == (None, None)


async def test_a_live_read_keeps_objects_created_while_it_ran(view: View) -> None:
    view.note_read("a", [], view.before_read("a"))
    before = view.before_read("a")
    view.note([one("Pod", 12, uid="new")])
    view.note_read("a", [], before)
    assert view.sandbox("a")[0] == one("Pod", 12, uid="new")


async def test_a_live_read_caches_the_objects_that_it_finds(view: View) -> None:
    found = [one("Pod", 12, "b"), one("Service", 13, "b")]
    view.note_read("b", found, view.before_read("b"))
    assert view.sandbox("b") == (found[0], found[1])
    assert view.ids() == {"a", "b"}


async def test_objects_that_belong_to_no_sandbox_are_not_cached(view: View) -> None:
    foreign = one("Pod", 12, "redis", app="redis")
    view.note_read("redis", [foreign], view.before_read("redis"))
    view.note([foreign, {"kind": "ConfigMap", "metadata": {"name": "sandbox-b", "labels": kube.labels_of("b")}}])
    assert view.sandbox("redis") == (None, None)
    assert len(list(view.objects())) == 2


async def test_a_sandbox_needs_both_objects_but_objects_lists_each(view: View) -> None:
    view.note([one("Pod", 12, "b"), one("Service", 13, "c")])
    assert view.ids() == {"a"}
    assert {kube.key_of(obj) for obj in view.objects()} == {
        ("Pod", "sandbox-a"), ("Service", "sandbox-a-svc"), ("Pod", "sandbox-b"), ("Service", "sandbox-c-svc"),
    }  # fmt: skip


async def test_each_change_is_signalled_with_name_and_both_versions(view: View) -> None:
    changed: list[tuple[str, str]] = []
    exchanged: list[tuple[KubeObject | None, KubeObject | None]] = []
    view.changed.connect(lambda kind, name: changed.append((kind, name)))
    view.exchanged.connect(lambda old, new: exchanged.append((old, new)))
    newer, last = one("Pod", 12), one("Pod", 13)
    view.note([newer])
    view.note_deleted([newer])
    view.cache("Pod").apply_event(Event("DELETED", last, 13), now())
    assert changed == [("Pod", "sandbox-a")] * 2
    assert exchanged == [(one("Pod", 5), newer), (newer, None)]
