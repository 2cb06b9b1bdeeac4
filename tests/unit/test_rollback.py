"""Rollback of a failed create: deleted and kept objects, and its deadline."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.access.accesses import Accesses
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.deadlines import Deadlines
from sandboxes.errors import ConnectionFailed
from sandboxes.kubectl.client import Kubectl
from sandboxes.service.attempt import Attempt, now
from sandboxes.service.locks import Locks
from sandboxes.service.rollback import Rollback
from sandboxes.service.template_objects import Extras, TemplateObjects
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.fakes import FakeCluster

POD, SERVICE = ("Pod", "deer-flow", "sandbox-a"), ("Service", "deer-flow", "sandbox-a-svc")


class FakeClock:
    """A clock that advances only by sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Stage:
    """A rollback, its cluster, and one failed create of sandbox `a`."""

    def __init__(self, settings: Settings, template: Template, deadlines: Deadlines) -> None:
        self.fake, self.clock = FakeCluster(), FakeClock()
        self.kubectl = Kubectl(self.fake, max_processes=4, max_waiting=4)
        self.cluster = Cluster(self.kubectl, NoInformer(), "deer-flow", deadlines=deadlines)
        locks = Locks()
        extras = Extras(self.cluster, {"default": template}, locks)
        self.rollback = Rollback(self.cluster, Accesses(settings), locks, extras, self.clock)
        sandbox = Sandbox("a", "t", "u")
        self.objects = build(sandbox, template, settings, applied_at=now())
        self.attempt = Attempt(sandbox, self.objects, TemplateObjects("a", []), before={}, applied=True)

    async def apply(self, *objects: dict[str, Any], **annotations: str) -> None:
        """Store objects as this create, or with other annotations as another process, would."""
        changed = copy.deepcopy(list(objects))
        for obj in changed:
            obj["metadata"]["annotations"] |= {name.replace("_", "-"): value for name, value in annotations.items()}
        await self.kubectl.apply(changed)

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _, _ in self.fake.objects}

    async def settle(self) -> None:
        """Wait until no rollback is pending."""
        async with asyncio.timeout(30):
            while self.rollback.any_pending:
                await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable retries of failed calls."""
    monkeypatch.setattr(ConnectionFailed, "pauses", ())


@pytest.fixture
def stage(make_settings: Callable[..., Settings], template: Template, deadlines: Deadlines) -> Stage:
    return Stage(make_settings(), template, deadlines)


async def test_a_create_that_applied_nothing_needs_no_kubectl_call(stage: Stage) -> None:
    stage.attempt.applied = False
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.fake.calls == []


async def test_an_incomplete_sandbox_is_deleted_immediately(stage: Stage) -> None:
    await stage.apply(stage.objects[0])
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.kinds == set()
    # Another process might have been about to create the Service.
    assert stage.clock.slept == [stage.cluster.deadlines.others_service]
    assert not stage.rollback.any_pending


async def test_a_sandbox_that_is_complete_after_all_is_returned(stage: Stage) -> None:
    await stage.apply(*stage.objects)
    pair = await stage.rollback.roll_back(stage.attempt)
    assert pair is not None
    assert [obj["kind"] for obj in pair if obj is not None] == ["Pod", "Service"]
    assert stage.kinds == {"Pod", "Service"}


async def test_objects_that_existed_before_are_kept(stage: Stage) -> None:
    await stage.apply(stage.objects[0])
    stage.attempt.before = {stage.fake.objects[POD]["metadata"]["uid"]: None}
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.kinds == {"Pod"}


async def test_objects_applied_by_another_process_are_kept(stage: Stage) -> None:
    await stage.apply(stage.objects[0])
    stage.fake.objects[POD]["metadata"]["annotations"][kube.APPLIED_AT_ANNOTATION] = "2026-01-01T00:00:00.000000Z"
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.kinds == {"Pod"}


async def test_objects_confirmed_by_another_process_are_kept(stage: Stage) -> None:
    await stage.apply(stage.objects[0])
    stage.fake.objects[POD]["metadata"]["annotations"][kube.CONFIRMED_ANNOTATION] = now()
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.kinds == {"Pod"}


async def test_a_failed_rollback_is_retried_until_the_cluster_is_back(stage: Stage) -> None:
    await stage.apply(stage.objects[0])
    stage.fake.answer_next("get", "refused", times=3)
    assert await stage.rollback.roll_back(stage.attempt) is None
    assert stage.rollback.is_pending("a")
    await stage.settle()
    assert stage.kinds == set()
    assert stage.clock.slept.count(stage.cluster.deadlines.settle_pause) == 2


async def test_a_sandbox_that_is_completed_after_the_error_response_is_deleted(stage: Stage) -> None:
    stage.fake.answer_next("get", "refused")
    assert await stage.rollback.roll_back(stage.attempt) is None
    await stage.apply(*stage.objects)
    await stage.settle()
    assert stage.kinds == set()


async def test_a_pending_rollback_is_cancelled_by_a_later_create(stage: Stage) -> None:
    stage.fake.answer_next("get", "refused")
    assert await stage.rollback.roll_back(stage.attempt) is None
    stage.rollback.forget("a")
    await stage.apply(*stage.objects)
    await stage.rollback.finish()
    assert stage.kinds == {"Pod", "Service"}


@pytest.mark.deadlines(settle=10.0, settle_pause=2.0)
async def test_a_rollback_is_abandoned_after_its_deadline_and_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.fake.answer_next("get", "refused", times=100)
    assert await stage.rollback.roll_back(stage.attempt) is None
    await stage.settle()
    assert stage.clock.slept == [2.0] * 5
    assert "objects of a failed create may be left behind" in caplog.text
