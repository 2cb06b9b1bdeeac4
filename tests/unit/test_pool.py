"""Number and renewal of the pool's idle processes, with real processes: a shell script as kubectl."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from sandboxes.deadlines import Deadlines
from sandboxes.kubectl.client import APPLY, DELETE, GET
from sandboxes.kubectl.pool import IDLE, ProcessPool
from sandboxes.kubectl.runner import KubectlRunner
from tests.record import case
from tests.waiting import until

AT_IDLE = sum(IDLE.values())
MOST = 5

# Reads its credentials at its start and its objects from stdin, as kubectl does.
SCRIPT = """#!/bin/sh
read token <{directory}/token
echo "$1 $token" >>{directory}/started
cat >/dev/null
echo "$1 $token" >>{directory}/used
test "$token" = good || {{ cat {directory}/refusal >&2; exit 1; }}
echo done
"""


class Shell:
    """A shell script as kubectl: its credentials, and a log of its processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text("1")
        self.binary = directory / "kubectl"
        self.binary.write_text(SCRIPT.format(directory=directory))
        self.binary.chmod(0o755)
        (directory / "refusal").write_text(case("unauthorized").stderr)
        for name in ("started", "used"):
            (directory / name).touch()
        self.give_token("good")

    def give_token(self, token: str) -> None:
        (self._directory / "token").write_text(f"{token}\n")

    def started(self) -> Counter[str]:
        """Count the processes that have read their credentials, by verb and token."""
        return Counter((self._directory / "started").read_text().splitlines())

    def used(self) -> Counter[str]:
        """Count the processes that were given objects, by verb and token."""
        return Counter((self._directory / "used").read_text().splitlines())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def processes(shell: Shell, deadlines: Deadlines) -> ProcessPool:
    runner = KubectlRunner(shell.binary, (), {"PATH": os.defpath})
    return ProcessPool(runner, shell.kubeconfig, most=MOST, deadlines=deadlines)


async def call(processes: ProcessPool, args: tuple[str, ...], times: int = 1) -> None:
    """Make concurrent calls, which must all succeed."""
    completed = await asyncio.gather(*(processes(args, stdin=b"{}") for _ in range(times)))
    assert [one.stdout for one in completed] == [b"done\n"] * times


@pytest.mark.deadlines(pool_tick=3600)  # never idle
async def test_the_pool_grows_by_the_missed_processes_up_to_its_limit(shell: Shell, processes: ProcessPool) -> None:
    async with processes.running():
        await until(lambda: processes.waiting == AT_IDLE)
        await call(processes, GET, times=3)  # One is idle, two are missed; from now on three are kept.
        await until(lambda: processes.waiting == AT_IDLE + 2)
        await until(lambda: shell.started()["get good"] == 3 + 3)
        await call(processes, GET, times=2 * MOST)
        await until(lambda: processes.waiting == AT_IDLE - IDLE[GET] + MOST)
        await until(lambda: shell.started()["get good"] == 3 + 2 * MOST + MOST)  # used and idle ones
        assert processes.waiting == AT_IDLE - IDLE[GET] + MOST
        assert shell.started()["apply good"] == IDLE[APPLY]
    assert processes.waiting == 0


@pytest.mark.deadlines(pool_tick=0.05)
async def test_an_idle_pool_shrinks_to_its_initial_size(shell: Shell, processes: ProcessPool) -> None:
    async with processes.running():

        async def more_wait() -> bool:
            await call(processes, GET, times=2 * MOST)
            return processes.waiting > AT_IDLE

        await until(more_wait)
        await until(lambda: processes.waiting == AT_IDLE)
        # And no fewer: after a renewal there are as many as initially.
        shell.give_token("new")
        shell.kubeconfig.write_text("changed")
        wanted = Counter({f"{args[0]} new": number for args, number in IDLE.items()})
        await until(lambda: wanted <= shell.started())
        await until(lambda: processes.waiting == AT_IDLE)


async def test_a_rejected_credential_discards_all_processes_that_read_it(shell: Shell, processes: ProcessPool) -> None:
    """Such as a plugin's token: the kubeconfig does not show that it has changed."""
    shell.give_token("old")
    async with processes.running():
        await until(lambda: processes.waiting == AT_IDLE and shell.started().total() == AT_IDLE)
        shell.give_token("good")
        await call(processes, GET)
        for args in (APPLY, APPLY, DELETE, GET):
            await call(processes, args)
    assert shell.used() == {"get old": 1, "get good": 2, "apply good": 2, "delete good": 1}


async def test_no_process_is_started_ahead_before_what_must_come_first(shell: Shell, processes: ProcessPool) -> None:
    first = asyncio.Event()

    async def comes_first() -> None:
        await first.wait()

    async with processes.running(after=comes_first):
        await call(processes, GET, times=2)  # these have processes of their own, which are not replaced
        assert processes.waiting == 0
        assert shell.started() == Counter({"get good": 2})
        first.set()
        await until(lambda: processes.waiting == AT_IDLE)
        await until(lambda: shell.started() == Counter({"apply good": 2, "get good": 3, "delete good": 1}))


@pytest.mark.deadlines(pool_delay=0.01)
async def test_processes_are_started_ahead_after_a_while_whatever_comes_first(processes: ProcessPool) -> None:
    async def never_comes() -> None:
        await asyncio.Event().wait()

    async with processes.running(after=never_comes):
        await until(lambda: processes.waiting == AT_IDLE)
