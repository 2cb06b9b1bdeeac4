"""Fixtures: the gateway with its default settings, or with a test's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.gateway_settings import GatewaySettings
from tests.gateway.world import World, running
from tests.network import unreachable

__all__ = ["make_world", "unreachable", "world"]

MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(deadlines: Deadlines) -> AsyncIterator[MakeWorld]:
    """Return a function that starts a gateway with these settings, by their names after `sandbox_gateway_`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(most: int | None = 1000, **settings: Any) -> World:
            given = {f"sandbox_gateway_{name}": value for name, value in settings.items()}
            return await stack.enter_async_context(running(GatewaySettings().model_copy(update=given), deadlines, most))

        yield make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()
