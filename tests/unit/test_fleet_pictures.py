"""The list of one cluster that does not answer: it delays one list, and is asked until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from sandboxes.deadlines import DEADLINES
from sandboxes.fleet.adapter import UnitCluster
from sandboxes.fleet.breaker import Breaker
from sandboxes.fleet.pictures import Pictures
from sandboxes.service.listing import ListQuery

QUERY = ListQuery()
PATIENT = 30.0


class SilentCluster:
    """A cluster whose live view is behind, and which answers once `answers` is set."""

    def __init__(self, read: float = 3600.0) -> None:
        self.answers = asyncio.Event()
        self.asked = 0
        deadlines = replace(DEADLINES, clusters_answer=0.02, read=read)
        self.state = SimpleNamespace(has_informer=True, is_fresh=False, deadlines=deadlines)
        self.breaker = Breaker("west", self.probe, lambda: None, deadlines)
        service = SimpleNamespace(cluster=self.state, list_all=self.list_all, list_known=lambda _query: ["old"])
        unit = SimpleNamespace(name="west", service=service)
        self.pictures = Pictures(cast("UnitCluster", SimpleNamespace(unit=unit, breaker=self.breaker)))

    async def probe(self) -> None:
        await self.answers.wait()

    async def list_all(self, _query: ListQuery | None = None) -> list[str]:
        self.asked += 1
        await self.answers.wait()
        return ["old", "new"]

    async def take(self) -> tuple[list[str], bool]:
        found, is_whole = await self.pictures.take(QUERY)
        await asyncio.sleep(0)
        return cast("list[str]", found), is_whole


@pytest.fixture
async def silent() -> AsyncIterator[SilentCluster]:
    cluster = SilentCluster()
    yield cluster
    await cluster.pictures.finish()
    await cluster.breaker.finish()


async def test_only_the_first_list_waits_for_a_cluster_that_is_silent(silent: SilentCluster) -> None:
    assert await silent.take() == (["old"], False)
    assert silent.asked == 1
    for _ in range(10):
        assert await silent.take() == (["old"], False)
    # One attempt for all of them, which none has waited for.
    assert silent.asked == 2


async def test_a_cluster_that_answers_again_is_listed_whole(silent: SilentCluster) -> None:
    for _ in range(2):
        assert await silent.take() == (["old"], False)
    silent.answers.set()
    async with asyncio.timeout(PATIENT):
        while await silent.take() != (["old", "new"], True):
            await asyncio.sleep(0)


async def test_a_silent_cluster_that_is_only_listed_is_found_to_be_unreachable() -> None:
    silent = SilentCluster(read=0.01)
    async with asyncio.timeout(PATIENT):
        while not silent.breaker.is_open:
            assert await silent.take() == (["old"], False)
            await asyncio.sleep(0.001)
    await silent.pictures.finish()
    await silent.breaker.finish()


async def test_a_fresh_view_is_listed_whatever_was_before(silent: SilentCluster) -> None:
    for _ in range(2):
        assert await silent.take() == (["old"], False)
    silent.state.is_fresh = True
    silent.answers.set()
    assert await silent.take() == (["old", "new"], True)
