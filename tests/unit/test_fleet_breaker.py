"""When a cluster counts as unreachable."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.errors import ClusterRefused, ConnectionFailed, ProvisionerError
from sandboxes.fleet.breaker import MOST_FAILURES, Breaker
from sandboxes.kubectl.stderr import classify
from tests.record import case


async def fail(breaker: Breaker, error: ProvisionerError) -> None:
    for _ in range(MOST_FAILURES):
        with pytest.raises(type(error)):
            async with breaker.guard():
                raise error


@pytest.fixture
def breaker() -> Breaker:
    async def never() -> None:
        await asyncio.Event().wait()

    return Breaker("east", never, lambda: None, Deadlines(fleet_probe=0.0))


@pytest.mark.parametrize("name", ["unauthorized", "unauthorized-apply", "plugin-notice-unauthorized"])
async def test_a_cluster_that_refuses_the_credentials_is_unreachable(breaker: Breaker, name: str) -> None:
    error = classify(case(name).stderr)
    assert isinstance(error, ClusterRefused)
    assert error.refuses_all
    await fail(breaker, error)
    assert breaker.is_open
    with pytest.raises(ConnectionFailed):
        async with breaker.guard():
            pass
    await breaker.finish()


@pytest.mark.parametrize("name", ["apply-forbidden", "apply-quota-must-specify"])
async def test_a_cluster_that_refuses_what_a_caller_asks_is_reachable(breaker: Breaker, name: str) -> None:
    error = classify(case(name).stderr)
    assert isinstance(error, ClusterRefused)
    assert not error.refuses_all
    await fail(breaker, error)
    assert not breaker.is_open
