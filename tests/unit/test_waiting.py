"""A test that waits in vain says for what."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import All, AtLeast, NeverTrue, Nothing, until


async def test_a_wait_in_vain_names_the_source_of_its_condition() -> None:
    pods: list[str] = []
    with pytest.raises(NeverTrue, match=r"not true within 0.01 s: .*len\(pods\) >= 3.*test_waiting.py:\d+"):
        await until(lambda: len(pods) >= 3, 0.01)


async def test_a_wait_in_vain_says_what_was_found_last() -> None:
    async def find() -> list[str]:
        return ["west"]

    with pytest.raises(NeverTrue, match="clusters that are away: \\['west'\\]"):
        await until(Nothing("clusters that are away", find), 0.01)


async def test_a_wait_in_vain_names_only_the_conditions_that_are_not_true() -> None:
    conditions = [AtLeast("creates", lambda: 5, 5), AtLeast("deletes", lambda: 1, 2)]
    with pytest.raises(NeverTrue, match=r"within 0.01 s: deletes: 1 of 2$"):
        await until(All(conditions), 0.01)


async def test_a_wait_says_that_its_condition_hangs() -> None:
    never = Nothing("answers", lambda: asyncio.get_running_loop().create_future())
    with pytest.raises(NeverTrue, match=r"has not answered for \d+\.\d s: answers: never answered"):
        await until(never, 0.01)


async def test_a_timeout_of_the_condition_itself_is_raised_as_it_is() -> None:
    async def ask() -> bool:
        raise TimeoutError("the server")

    with pytest.raises(TimeoutError, match="the server"):
        await until(ask, 60)


async def test_a_condition_that_finds_nothing_any_more_ends_the_wait() -> None:
    left = ["a", "b"]
    await until(Nothing("left", lambda: left.pop() and left), 60)
    assert left == []
