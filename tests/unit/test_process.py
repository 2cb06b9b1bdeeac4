"""One child process: input, limits, kill and reaping. Real processes: a shell as kubectl."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from sandboxes.kubectl import process
from sandboxes.kubectl.process import Completed, OutputTooLarge, run_process, start_process
from tests.conftest import ROOT
from tests.waiting import until

ENV = {"PATH": os.defpath}


def is_running(pid: int) -> bool:
    """Whether the process runs (an unreaped zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def wait_for_text(path: Path) -> str:
    while not (path.exists() and path.read_text().endswith("\n")):
        await asyncio.sleep(0.01)
    return path.read_text()


async def test_run_process_returns_exit_code_and_output() -> None:
    script = "read line; echo out $line; echo err >&2; exit 3"
    completed = await run_process(["/bin/sh", "-c", script], stdin=b"in\n", env=ENV)
    assert (completed.returncode, completed.stdout, completed.stderr) == (3, b"out in\n", "err\n")


async def test_a_process_without_stdin_reads_end_of_file() -> None:
    completed = await run_process(["/bin/sh", "-c", "read line || echo nothing"], stdin=None, env=ENV)
    assert completed.stdout == b"nothing\n"


async def test_a_process_gets_only_the_given_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    completed = await run_process(["/usr/bin/env"], stdin=None, env={"A": "1"})
    assert completed.stdout == b"A=1\n"


async def test_unread_input_does_not_block() -> None:
    completed = await run_process(["/bin/sh", "-c", "exit 7"], stdin=b"x" * 5_000_000, env=ENV)
    assert completed.returncode == 7


async def test_large_output_is_read_completely() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; cat >&2"
    completed = await run_process(["/bin/sh", "-c", script], stdin=b"y" * 300_000, env=ENV)
    assert len(completed.stdout) == 20000 * 41
    assert len(completed.stderr) == 300_000


async def test_excessive_output_kills_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "MAX_STDOUT_BYTES", 100_000)
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; while :; do echo 0123456789012345678901234567890123456789; done"
    with pytest.raises(OutputTooLarge):
        await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)
    assert not is_running(int(pid_file.read_text()))


@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_cancelling_the_call_kills_the_process_and_its_children(tmp_path: Path, way: str) -> None:
    pid_file = tmp_path / "pids"
    # It ignores signals, and has a child that holds its output open.
    script = f"trap '' TERM INT HUP; sleep 600 & echo $$ $! > {pid_file}; wait"

    limit = asyncio.timeout(None)

    async def run() -> None:
        async with limit:
            await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)

    task = asyncio.create_task(run())
    pids = [int(pid) for pid in (await wait_for_text(pid_file)).split()]
    if way == "cancelled":
        task.cancel()
    else:
        limit.reschedule(asyncio.get_running_loop().time())
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await task
    assert not is_running(pids[0])
    # Its child was killed with it; nobody here can await its end.
    await until(lambda: not is_running(pids[1]))


async def test_a_surviving_child_that_holds_the_output_open_is_not_awaited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.2)
    pid_file = tmp_path / "pid"
    script = f"setsid sleep 600 & echo $! > {pid_file}; echo done; exit 4"
    async with asyncio.timeout(5):
        completed = await run_process(["/bin/sh", "-c", script], stdin=None, env=ENV)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert (completed.returncode, completed.stdout) == (4, b"done\n")


async def test_no_file_descriptor_is_leaked() -> None:
    await run_process(["/bin/true"], stdin=b"x", env=ENV)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await run_process(["/bin/true"], stdin=b"x", env=ENV)
        with pytest.raises(FileNotFoundError):
            await run_process(["/nowhere"], stdin=None, env=ENV)
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_missing_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(["/nowhere/kubectl"], stdin=None, env=ENV)


async def test_lines_of_any_length_are_read_completely() -> None:
    script = "echo one; echo two; head -c 3000000 /dev/zero | tr '\\0' x; echo; printf half"
    child = await start_process(["/bin/sh", "-c", script], env=ENV, reads=False)
    lines = [line async for line in child.lines(4_000_000)]
    await child.kill()
    assert lines == [b"one", b"two", b"x" * 3_000_000]
    assert child.unfinished == b"half"


async def test_an_endless_line_is_an_error() -> None:
    child = await start_process(["/bin/sh", "-c", "cat /dev/zero"], env=ENV, reads=False)
    with pytest.raises(OutputTooLarge):
        async for _ in child.lines(100_000):
            pass
    assert (await child.kill()).returncode == -signal.SIGKILL


async def test_stderr_is_returned_after_a_kill() -> None:
    child = await start_process(["/bin/sh", "-c", "echo why >&2; echo ready; sleep 600"], env=ENV, reads=False)
    assert await anext(child.lines(100)) == b"ready"
    assert not child.has_ended
    assert await child.kill() == Completed(-signal.SIGKILL, b"", "why\n")
    assert child.has_ended


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no parent-death signal")
async def test_a_process_dies_with_its_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import asyncio\n"
        "from sandboxes.kubectl.process import start_process\n"
        "async def main():\n"
        f"    script = 'echo $$ > {tmp_path}/pid; exec sleep 600'\n"
        "    await start_process(['/bin/sh', '-c', script], env={'PATH': '/usr/bin:/bin'}, reads=False,"
        " dies_with_us=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(program), env={"PYTHONPATH": str(ROOT)})
    pid = int(await wait_for_text(tmp_path / "pid"))
    assert is_running(pid)
    parent.kill()
    await parent.wait()
    while is_running(pid):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [0, 100_000])
async def test_cancelling_a_call_while_its_input_is_written_logs_nothing(size: int, tmp_path: Path) -> None:
    """The input fits into asyncio's buffer and not into the pipe, so it is never written completely."""
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    script = f"echo $$ > {tmp_path}/pid; sleep 600"
    for _ in range(5):
        call = asyncio.create_task(run_process(["/bin/sh", "-c", script], stdin=b"x" * size, env=ENV))
        await wait_for_text(tmp_path / "pid")
        (tmp_path / "pid").unlink()
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0)
    assert errors == []
