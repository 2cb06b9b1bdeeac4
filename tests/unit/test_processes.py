"""One child process: fed, bounded, ended and reaped. Real processes, a small shell in kubectl's place."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from sandboxes import processes
from sandboxes.processes import OutputTooLarge, run_process

ENV = {"PATH": os.defpath}


def is_running(pid: int) -> bool:
    """Whether the process runs (a zombie that nobody reaps does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def wait_for_text(path: Path) -> str:
    while not (path.exists() and path.read_text().endswith("\n")):
        await asyncio.sleep(0.01)
    return path.read_text()


async def test_what_it_reads_writes_and_ends_with() -> None:
    script = "read line; echo out $line; echo err >&2; exit 3"
    completed = await run_process(["/bin/sh", "-c", script], stdin=b"in\n", env=ENV)
    assert (completed.returncode, completed.stdout, completed.stderr) == (3, b"out in\n", "err\n")


async def test_it_can_not_prompt() -> None:
    completed = await run_process(["/bin/sh", "-c", "read line || echo nothing"], stdin=None, env=ENV)
    assert completed.stdout == b"nothing\n"


async def test_it_sees_only_the_environment_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    completed = await run_process(["/usr/bin/env"], stdin=None, env={"A": "1"})
    assert completed.stdout == b"A=1\n"


async def test_much_input_that_nobody_reads_does_no_harm() -> None:
    completed = await run_process(["/bin/sh", "-c", "exit 7"], stdin=b"x" * 5_000_000, env=ENV)
    assert completed.returncode == 7


async def test_much_output_is_read_whole() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; cat >&2"
    completed = await run_process(["/bin/sh", "-c", script], stdin=b"y" * 300_000, env=ENV)
    assert len(completed.stdout) == 20000 * 41
    assert len(completed.stderr) == 300_000


async def test_too_much_output_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "MAX_STDOUT_BYTES", 100_000)
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; while :; do echo 0123456789012345678901234567890123456789; done"
    with pytest.raises(OutputTooLarge):
        await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)
    assert not is_running(int(pid_file.read_text()))


@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_it_ends_with_its_helpers_when_nobody_waits_any_more(tmp_path: Path, way: str) -> None:
    pid_file = tmp_path / "pids"
    # It ignores what can be ignored, and has a helper that holds its output open.
    script = f"trap '' TERM INT HUP; sleep 600 & echo $$ $! > {pid_file}; wait"

    async def run() -> None:
        async with asyncio.timeout(0.5 if way == "timed out" else None):
            await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)

    task = asyncio.create_task(run())
    pids = [int(pid) for pid in (await wait_for_text(pid_file)).split()]
    if way == "cancelled":
        task.cancel()
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await task
    assert [pid for pid in pids if is_running(pid)] == []


async def test_a_helper_that_outlives_it_and_holds_its_output_open_is_not_waited_for(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sleep 600 & echo $! > {pid_file}; echo done; exit 4"
    async with asyncio.timeout(5):
        completed = await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert (completed.returncode, completed.stdout) == (4, b"done\n")


async def test_no_file_is_left_open() -> None:
    await run_process(["/bin/true"], stdin=b"x", env=ENV)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await run_process(["/bin/true"], stdin=b"x", env=ENV)
        with pytest.raises(FileNotFoundError):
            await run_process(["/nowhere"], stdin=None, env=ENV)
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_what_can_not_be_started_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(["/nowhere/kubectl"], stdin=None, env=ENV)
