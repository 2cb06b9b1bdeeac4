"""Background tasks, and signals with listeners."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sandboxes.tasks import BackgroundTasks, Signal


async def test_a_started_task_is_kept_until_it_ends() -> None:
    tasks, go = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        await go.wait()

    tasks.start(work())
    assert len(tasks) == 1
    go.set()
    await tasks.finish(10)
    assert len(tasks) == 0


async def test_a_task_that_exceeds_its_time_is_cancelled() -> None:
    tasks = BackgroundTasks()

    async def never() -> None:
        await asyncio.Event().wait()

    task = tasks.start(never())
    await tasks.wait(0)
    assert not task.done()
    await tasks.finish(0)
    assert task.cancelled()
    assert len(tasks) == 0


async def test_an_exception_of_a_background_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks()

    async def broken() -> None:
        raise KeyError("a")

    with caplog.at_level(logging.ERROR):
        tasks.start(broken())
        await tasks.finish(10)
    assert "KeyError" in caplog.text


def test_listeners_are_called_in_order() -> None:
    calls: list[tuple[str, int, str]] = []
    signal: Signal[[int, str]] = Signal()
    signal.connect(lambda number, text: calls.append(("first", number, text)))
    signal.connect(lambda number, text: calls.append(("second", number, text)))
    signal.send(1, "a")
    assert calls == [("first", 1, "a"), ("second", 1, "a")]
