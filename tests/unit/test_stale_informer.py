"""Deletions by an informer that is fresh by its limit, but lags behind the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.informer import Informer
from sandboxes.errors import ClusterTimeout
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.objects import KubeObject
from sandboxes.service.keepalive import Uses
from sandboxes.service.locks import Locks
from sandboxes.service.reaper import Reaper
from sandboxes.service.template_objects import Extras
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template
from tests.fakes import FakeCluster

NS = "deer-flow"
CREATED = "2026-01-01T00:00:00Z"


class ScriptedInformer(Informer):
    """An informer whose lists are set by a test, and whose watches deliver nothing."""

    def list(self, *objects: KubeObject) -> None:
        for kind, cache in self._caches.items():
            cache.begin_list()
            cache.add_page([obj for obj in objects if obj["kind"] == kind])
            cache.end_list(1000, asyncio.get_running_loop().time())


def one(kind: str, **annotations: str) -> KubeObject:
    name = {"Pod": "sandbox-a", "Service": "sandbox-a-svc"}.get(kind, "sandbox-a-config")
    metadata: dict[str, Any] = {"name": name, "namespace": NS, "labels": kube.labels_of("a")}
    return {
        "kind": kind,
        "apiVersion": "v1",
        "metadata": {**metadata, "creationTimestamp": CREATED, "annotations": annotations},
        "spec": {"containers": []},
        "status": {},
    }


class Stage:
    """A cluster in memory, an informer of it, and the reaper and template objects that use both."""

    def __init__(self, settings: Settings) -> None:
        self.fake = FakeCluster()
        kubectl = Kubectl(self.fake, max_processes=2, max_waiting=10)
        self.informer = ScriptedInformer(kubectl, KubectlRunner(Path("/never/started"), (), {}), NS, max_age=60)
        self.cluster = Cluster(kubectl, self.informer, NS)
        locks = Locks()
        extra = one("ConfigMap")
        extra["metadata"]["name"] = "sandbox-example-config"
        template = Template(one("Pod"), one("Service"), (extra,))
        self.extras = Extras(self.cluster, {"t": template, "bare": Template(one("Pod"), one("Service"))}, locks)
        self.reaper = Reaper(self.cluster, settings, locks, Uses(self.cluster), self.extras)

    def put(self, kind: str, **annotations: str) -> KubeObject:
        return self.fake.put(one(kind, **annotations))

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _, _ in self.fake.objects}


@pytest.fixture
async def stage(make_settings: Callable[..., Settings]) -> Stage:
    return Stage(make_settings(REAPER_GRACE="1"))


@pytest.mark.parametrize("listed", ["Pod", "Service"])
async def test_a_sandbox_incomplete_only_in_the_informer_is_kept(stage: Stage, listed: str) -> None:
    whole = [stage.put("Pod"), stage.put("Service")]
    stage.informer.list(*(obj for obj in whole if obj["kind"] == listed))
    assert len(await stage.reaper.due()) == 1
    assert await stage.reaper.round(dry_run=False) == []
    assert stage.kinds == {"Pod", "Service"}


async def test_a_sandbox_incomplete_in_the_cluster_is_deleted(stage: Stage) -> None:
    stage.informer.list(stage.put("Pod"))
    assert len(await stage.reaper.round(dry_run=False)) == 1
    assert stage.kinds == set()


MARKS = {kube.THREAD_ANNOTATION: "t", kube.APPLIED_AT_ANNOTATION: CREATED}


async def test_template_objects_of_an_uncached_pod_are_found_before_its_deletion(stage: Stage) -> None:
    stage.informer.list()
    pod = stage.put("Pod", **MARKS, **{kube.TEMPLATE_ANNOTATION: "t"})
    config = stage.put("ConfigMap", **MARKS)
    leaving = await stage.extras.leaving("a")
    assert leaving is not None
    assert (leaving.pod, leaving.objects) == (pod, [config])


@pytest.mark.parametrize("step", ["lists", "looks for Pods"])
async def test_a_failed_search_for_leftovers_is_repeated_in_the_next_round(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    stage.put("ConfigMap", **MARKS)  # The informer is not fresh, so the Pods are read, too.

    async def fail(*_: object, **__: object) -> None:
        raise ClusterTimeout(detail="no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Kubectl, "list_extras" if step == "lists" else "get", fail)
        with pytest.raises(ClusterTimeout):
            await stage.extras.remove_leftovers(1)
    assert await stage.extras.remove_leftovers(1) == ["ConfigMap sandbox-a-config"]
    assert stage.kinds == set()


async def test_template_objects_of_an_uncached_pod_are_neither_deleted_nor_reported(stage: Stage) -> None:
    stage.informer.list()
    pod = stage.put("Pod", **MARKS)
    stage.put("ConfigMap", **MARKS)
    assert await stage.extras.remove_leftovers(1) == []
    assert stage.kinds == {"Pod", "ConfigMap"}
    del stage.fake.objects[FakeCluster.key(pod)]
    stage.informer.list()
    assert await stage.extras.remove_leftovers(1) == ["ConfigMap sandbox-a-config"]


async def test_rounds_with_a_fresh_informer_start_no_kubectl_but_one_search_for_leftovers(stage: Stage) -> None:
    # A Pod of a template without objects of its own, so its end leaves nothing.
    stage.informer.list(stage.put("Pod"), stage.put("Service"))
    assert await stage.reaper.round(dry_run=False) == []
    searched = list(stage.fake.calls)
    assert [args[:2] for args in searched] == [("get", "--raw")] * len(kube.EXTRA_KINDS)
    for _ in range(3):
        assert await stage.reaper.round(dry_run=False) == []
    assert stage.fake.calls == searched


@pytest.mark.parametrize(("template", "searches"), [("t", 2), ("unknown", 2), ("bare", 1)])
async def test_leftovers_are_searched_again_after_a_pod_that_may_have_left_some(
    stage: Stage, template: str, searches: int
) -> None:
    pod = stage.put("Pod", **MARKS, **{kube.TEMPLATE_ANNOTATION: template})
    stage.informer.list(pod)
    assert await stage.extras.remove_leftovers(1) == []
    stage.informer.list()
    assert await stage.extras.remove_leftovers(1) == []
    assert len(stage.fake.calls) == searches * len(kube.EXTRA_KINDS)
