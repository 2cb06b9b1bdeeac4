"""Hypothesis settings for tests of the REST API with generated requests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SETTINGS = settings(
    max_examples=settings().max_examples * 3 // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
