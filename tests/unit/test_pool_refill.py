"""When the pool starts processes: after the calls, which need the processor, unless none is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.kubectl.client import APPLY, DELETE, GET
from sandboxes.kubectl.plugins import PluginWatch
from sandboxes.kubectl.pool import IDLE, ProcessPool
from sandboxes.kubectl.process import Completed
from sandboxes.kubectl.runner import KubectlRunner
from tests.waiting import until

AT_IDLE = sum(IDLE.values())
DONE = Completed(0, b"done", "")


class Machine:
    """A Runner whose calls last until `ended` is set, and which counts the processes that it starts ahead."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.ended = asyncio.Event()
        self.calls = 0
        self.plugins = PluginWatch()

    async def start(self, args: Sequence[str], *, reads: bool) -> Machine:
        assert reads
        self.started[args[0]] += 1
        return self

    async def __call__(self, _args: Sequence[str], *, stdin: bytes | None) -> Completed:
        return await self.communicate(stdin)

    # A process of it

    has_ended = False

    said = ""

    async def communicate(self, _stdin: bytes | None, **_options: object) -> Completed:
        self.calls += 1
        await self.ended.wait()
        return DONE

    async def kill(self) -> None:
        """Do nothing: no process was started."""


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def pool(machine: Machine, tmp_path: Path, deadlines: Deadlines) -> AsyncIterator[ProcessPool]:
    one = ProcessPool(cast("KubectlRunner", machine), tmp_path / "kubeconfig", most=5, deadlines=deadlines)
    async with one.running():
        await until(lambda: one.waiting == AT_IDLE)
        yield one


async def passes() -> None:
    """Wait for longer than the pause after a call; starts are counted without any wait."""
    await asyncio.sleep(0.1)


async def begin(pool: ProcessPool, machine: Machine, args: tuple[str, ...]) -> asyncio.Task[Completed]:
    before = machine.calls
    task = asyncio.create_task(pool(args, stdin=b"{}"))
    await until(lambda: machine.calls == before + 1)
    return task


@pytest.mark.deadlines(pool_tick=0.01)
async def test_while_a_call_runs_no_other_process_starts(pool: ProcessPool, machine: Machine) -> None:
    task = await begin(pool, machine, APPLY)
    await passes()
    assert machine.started == IDLE_STARTS
    machine.ended.set()
    assert await task == DONE
    assert machine.started == IDLE_STARTS
    await until(lambda: machine.started == IDLE_STARTS + Counter(apply=1))
    assert pool.waiting == AT_IDLE


@pytest.mark.deadlines(pool_tick=3600)
@pytest.mark.parametrize("args", [GET, DELETE])
async def test_if_none_is_left_one_starts_at_once(pool: ProcessPool, machine: Machine, args: tuple[str, ...]) -> None:
    tasks = [await begin(pool, machine, args)]
    await until(lambda: machine.started == IDLE_STARTS + Counter([args[0]]))
    await until(lambda: pool.waiting == AT_IDLE)
    machine.ended.set()
    await asyncio.gather(*tasks)


@pytest.mark.deadlines(pool_tick=3600)
async def test_a_call_of_another_verb_delays_the_replacement_too(pool: ProcessPool, machine: Machine) -> None:
    deleting = await begin(pool, machine, DELETE)
    await until(lambda: pool.waiting == AT_IDLE)
    applying = await begin(pool, machine, APPLY)
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    await passes()
    assert machine.started == IDLE_STARTS + Counter(delete=1)
    machine.ended.set()
    await applying
    await until(lambda: pool.waiting == AT_IDLE)
    assert machine.started == IDLE_STARTS + Counter(delete=1, apply=1)


IDLE_STARTS = Counter({args[0]: number for args, number in IDLE.items()})
