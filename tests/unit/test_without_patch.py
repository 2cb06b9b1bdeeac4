"""Creates without the right to patch: races that are rare on a real cluster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from sandboxes.access.accesses import Accesses
from sandboxes.cluster.cluster import Cluster
from sandboxes.errors import ObjectsChanged
from sandboxes.service.attempt import Attempt, now
from sandboxes.service.template_objects import TemplateObjects
from sandboxes.service.without_patch import WithoutPatch
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import CreateOptions, Sandbox
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

    making = WithoutPatch(cast(Cluster, cluster), Accesses(settings), wait_until_gone)
    with pytest.raises(ObjectsChanged):
        await making.make(Attempt(sandbox, mine, TemplateObjects("a", [])), None, None)
    assert cluster.deleted == []


EARLY, LATE, LATER = (f"2026-01-01T00:0{minute}:00+00:00" for minute in range(3))
UNSEEN = "not seen"


@pytest.mark.parametrize(
    ("label", "read", "applied_at", "confirmed", "is_left_over"),
    [
        ("", EARLY, EARLY, False, True),
        ("", LATER, LATER, False, True),  # by a clock that is ahead
        ("", None, None, False, True),
        ("other", EARLY, LATER, False, True),
        ("", EARLY, LATER, False, False),
        ("", LATER, EARLY, False, False),  # by a clock that is behind
        ("", UNSEEN, EARLY, False, False),
        ("", EARLY, EARLY, True, False),
    ],
)
def test_a_service_that_another_process_may_have_completed_the_pod_by_stays(
    make_settings: Callable[..., Settings],
    template: Template,
    label: str,
    read: str | None,
    applied_at: str | None,
    *,
    confirmed: bool,
    is_left_over: bool,
) -> None:
    sandbox, settings = Sandbox("a", "t", "u"), make_settings()
    attempt = Attempt(sandbox, build(sandbox, template, settings, applied_at=LATE), TemplateObjects("a", []))
    pod = stored(attempt.objects[0], "mine")
    if confirmed:
        pod["metadata"]["annotations"]["provisioner/confirmed-at"] = LATE
    labels = (("of", label),) if label else ()
    others = Sandbox("a", "t", "u", asks=CreateOptions(labels=labels))
    service = stored(build(others, template, settings, applied_at=applied_at or EARLY)[1], "other")
    if applied_at is None:
        del service["metadata"]["annotations"]["provisioner/applied-at"]
    attempt.before = {} if read == UNSEEN else {"other": read}
    assert attempt.may_replace(service, pod) is is_left_over
