"""Freshness and certainty of the informer, and the effect of live reads and unconfirmed deletes."""

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


class ScriptedInformer(Informer):
    """An informer whose lists and watches are set by a test."""

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


async def next_tick() -> None:
    """Wait until the clock advances, whatever its resolution."""
    began = now()
    while now() <= began:
        await asyncio.sleep(0)


@pytest.fixture
async def informer() -> ScriptedInformer:
    """Return an informer that has just listed the sandbox a."""
    informer = ScriptedInformer()
    informer.list(*pair())
    await next_tick()
    return informer


async def test_the_informer_is_fresh_only_after_both_kinds_were_listed() -> None:
    informer = ScriptedInformer()
    assert (informer.is_fresh, informer.age) == (False, float("inf"))
    informer.list(kinds=["Pod"])
    assert (informer.is_fresh, informer.age) == (False, float("inf"))
    informer.list(kinds=["Service"])
    assert informer.is_fresh
    assert informer.age < MAX_AGE


async def test_the_informers_age_is_that_of_its_older_cache(informer: ScriptedInformer) -> None:
    informer.list(kinds=["Service"], began=now() - MAX_AGE - 1)
    assert not informer.is_fresh
    assert MAX_AGE < informer.age < float("inf")
    informer.cache("Service").failed()
    assert informer.age == float("inf")


async def test_becomes_fresh_returns_when_both_kinds_were_listed() -> None:
    informer = ScriptedInformer()
    waits = asyncio.create_task(informer.becomes_fresh())
    await asyncio.sleep(0)
    informer.list(kinds=["Pod"])
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waits.done()
    informer.list(kinds=["Service"])
    await waits


async def test_the_informer_is_certain_only_while_it_is_fresh(informer: ScriptedInformer) -> None:
    assert informer.is_certain("a")
    assert informer.is_certain_of_all
    informer.cache("Pod").failed()
    assert not informer.is_certain("a")
    assert not informer.is_certain_of_all


async def test_a_doubt_affects_its_sandbox_and_lists_only(informer: ScriptedInformer) -> None:
    informer.doubt("a")
    assert informer.is_fresh
    assert [informer.is_certain("a"), informer.is_certain("b"), informer.is_certain_of_all] == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_doubt_lasts_until_both_kinds_were_confirmed_after_it(informer: ScriptedInformer, kind: str) -> None:
    informer.doubt("a")
    await next_tick()
    informer.end_watches([kind])
    assert not informer.is_certain("a")
    informer.end_watches()
    assert informer.is_certain("a")
    assert informer.is_certain_of_all


async def test_a_list_started_before_a_doubt_does_not_end_it(informer: ScriptedInformer) -> None:
    began = now()
    await next_tick()
    informer.doubt("a")
    informer.list(*pair(), version=20, began=began)
    assert not informer.is_certain("a")
    await next_tick()
    informer.list(version=30)
    assert informer.is_certain("a")


async def test_a_failed_watch_keeps_a_doubt(informer: ScriptedInformer) -> None:
    informer.doubt("a")
    await next_tick()
    informer.end_watches()
    informer.cache("Pod").failed()
    assert not informer.is_certain("a")


async def test_a_live_read_after_a_doubt_ends_it(informer: ScriptedInformer) -> None:
    informer.doubt("a")
    before = informer.before_read("a")
    informer.note_read("a", pair(), before)
    assert informer.is_certain("a")


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_live_read_started_before_a_doubt_does_not_end_it(informer: ScriptedInformer, is_first: bool) -> None:
    if not is_first:
        informer.doubt("a")
        await next_tick()
    before = informer.before_read("a")
    informer.doubt("a")
    informer.note_read("a", pair(), before)
    assert not informer.is_certain("a")


async def test_a_live_read_removes_cached_objects_that_it_does_not_find(informer: ScriptedInformer) -> None:
    informer.note_read("a", [one("Service", 6)], informer.before_read("a"))
    assert informer.sandbox("a") == (None, one("Service", 6))
    informer.note_read("a", [], informer.before_read("a"))
    assert informer.sandbox("a") == (None, None)


async def test_a_live_read_keeps_objects_created_while_it_ran(informer: ScriptedInformer) -> None:
    informer.note_read("a", [], informer.before_read("a"))
    before = informer.before_read("a")
    informer.note([one("Pod", 12, uid="new")])
    informer.note_read("a", [], before)
    assert informer.sandbox("a")[0] == one("Pod", 12, uid="new")


async def test_a_live_read_caches_the_objects_that_it_finds(informer: ScriptedInformer) -> None:
    found = [one("Pod", 12, "b"), one("Service", 13, "b")]
    informer.note_read("b", found, informer.before_read("b"))
    assert informer.sandbox("b") == (found[0], found[1])
    assert informer.ids() == {"a", "b"}


async def test_objects_that_belong_to_no_sandbox_are_not_cached(informer: ScriptedInformer) -> None:
    foreign = one("Pod", 12, "redis", app="redis")
    informer.note_read("redis", [foreign], informer.before_read("redis"))
    informer.note([foreign, {"kind": "ConfigMap", "metadata": {"name": "sandbox-b", "labels": kube.labels_of("b")}}])
    assert informer.sandbox("redis") == (None, None)
    assert len(list(informer.objects())) == 2


async def test_a_sandbox_needs_both_objects_but_objects_lists_each(informer: ScriptedInformer) -> None:
    informer.note([one("Pod", 12, "b"), one("Service", 13, "c")])
    assert informer.ids() == {"a"}
    assert {kube.key_of(obj) for obj in informer.objects()} == {
        ("Pod", "sandbox-a"), ("Service", "sandbox-a-svc"), ("Pod", "sandbox-b"), ("Service", "sandbox-c-svc"),
    }  # fmt: skip


async def test_each_change_is_signalled_with_name_and_both_versions(informer: ScriptedInformer) -> None:
    changed: list[tuple[str, str]] = []
    exchanged: list[tuple[KubeObject | None, KubeObject | None]] = []
    informer.changed.connect(lambda kind, name: changed.append((kind, name)))
    informer.exchanged.connect(lambda old, new: exchanged.append((old, new)))
    newer, last = one("Pod", 12), one("Pod", 13)
    informer.note([newer])
    informer.note_deleted([newer])
    informer.cache("Pod").apply_event(Event("DELETED", last, 13), now())
    assert changed == [("Pod", "sandbox-a")] * 2
    assert exchanged == [(one("Pod", 5), newer), (newer, None)]
