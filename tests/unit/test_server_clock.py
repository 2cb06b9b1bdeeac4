"""The lower bound of the API server's time, and what a create decides by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandboxes.cluster.server_clock import ServerClock
from sandboxes.deadlines import DEADLINES
from sandboxes.service.attempt import Attempt
from sandboxes.service.template_objects import TemplateObjects
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template

START = datetime(2026, 1, 1, tzinfo=UTC)


class Monotonic:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(seconds: float) -> dict[str, Any]:
    """Return an object that the API server created so long after START."""
    return {"metadata": {"creationTimestamp": (START + timedelta(seconds=seconds)).isoformat()}}


def test_nothing_is_known_before_the_api_server_has_answered() -> None:
    assert ServerClock().at_least() is None


def test_the_servers_clock_goes_on_with_the_monotonic_one() -> None:
    monotonic = Monotonic()
    clock = ServerClock(monotonic)
    clock.note([made(0)])
    monotonic.now += 5
    assert clock.at_least() == START + timedelta(seconds=5)


def test_an_old_object_does_not_set_the_clock_back() -> None:
    clock = ServerClock(Monotonic())
    clock.note([made(0), made(-3600)])
    clock.note([made(-60)])
    assert clock.at_least() == START


def test_a_measurement_is_replaced_after_a_time_for_the_servers_clock_may_be_set_back() -> None:
    monotonic = Monotonic()
    clock = ServerClock(monotonic)
    clock.note([made(3600)])
    monotonic.now += DEADLINES.clock_measured + 1
    clock.note([made(0)])
    assert clock.at_least() == START


@pytest.mark.parametrize("skew", [-3600, -60, 0, 60, 3600])
@pytest.mark.parametrize("began", [None, START])
def test_a_create_knows_its_own_objects_whatever_its_clock_shows(
    make_settings: Callable[..., Settings], template: Template, skew: int, began: datetime | None
) -> None:
    applied_at = (START + timedelta(seconds=skew)).isoformat()
    sandbox = Sandbox("a", "t", "u")
    objects = build(sandbox, template, make_settings(), applied_at=applied_at)
    attempt = Attempt(sandbox, objects, TemplateObjects("a", []), before={}, applied=True, began=began)
    for obj in objects:
        obj["metadata"] |= {"uid": "u", **made(1)["metadata"]}
        assert attempt.may_have_made(obj)
        # One that the live view has missed, by the API server's times alone.
        obj["metadata"] |= made(-DEADLINES.clocks_differ - 1)["metadata"]
        assert attempt.may_have_made(obj) == (began is None)
