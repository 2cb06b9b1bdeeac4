"""Creates without the right to patch: races that are rare on a real cluster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from sandboxes.cluster.cluster import Cluster
from sandboxes.errors import ObjectsChanged
from sandboxes.service.attempt import Attempt, now
from sandboxes.service.template_objects import TemplateObjects
from sandboxes.service.without_patch import WithoutPatch
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template


def stored(obj: dict[str, Any], uid: str) -> dict[str, Any]:
    return {**copy.deepcopy(obj), "metadata": {**copy.deepcopy(obj["metadata"]), "uid": uid}}


class OvertakenCluster:
    """A cluster in which another process recreates this create's Pod before its Service is created."""

    def __init__(self, others: list[dict[str, Any]]) -> None:
        self.others = others
        self.deleted: list[dict[str, Any]] = []

    async def create(self, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [stored(obj, "mine") for obj in objects if obj["kind"] == "Pod"]

    async def look(self, _sandbox_id: str) -> list[dict[str, Any]]:
        return self.others

    async def delete_exactly(self, obj: dict[str, Any]) -> bool:
        self.deleted.append(obj)
        return True


async def test_the_service_of_another_processs_pod_is_not_replaced(
    make_settings: Callable[..., Settings], template: Template
) -> None:
    sandbox, settings = Sandbox("a", "t", "u"), make_settings()
    mine = build(sandbox, template, settings, applied_at=now())
    others = build(sandbox, template, settings, applied_at="2026-01-01T00:00:00+00:00")
    cluster = OvertakenCluster([stored(obj, "other") for obj in others])

    async def wait_until_gone(_attempt: Attempt, _obj: dict[str, Any]) -> None:
        return None

    making = WithoutPatch(cast(Cluster, cluster), wait_until_gone)
    with pytest.raises(ObjectsChanged):
        await making.make(Attempt(sandbox, mine, TemplateObjects("a", [])), None, None)
    assert cluster.deleted == []
