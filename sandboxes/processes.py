"""One child process, well kept: fed, read within bounds, ended and reaped whatever happens. Knows no kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A list of 10,000 sandboxes is about 75 MB (kubectl.md: 191 objects are 1.4 MB).
MAX_STDOUT_BYTES = 128 * 1024 * 1024
MAX_STDERR_BYTES = 1024 * 1024
_CHUNK = 256 * 1024
_DRAIN_SECONDS = 1.0


class OutputTooLarge(Exception):
    """The process wrote more than a reader can be asked to hold; it was ended."""


@dataclass(frozen=True)
class Completed:
    """A process that has ended: its exit code (negative: the signal that ended it) and all that it wrote."""

    returncode: int
    stdout: bytes
    stderr: str


async def run_process(argv: Sequence[str], *, stdin: bytes | None, env: Mapping[str, str]) -> Completed:
    """Run `argv` to its end and return what came of it.

    `stdin`: what it reads; None gives it an empty one, so that it can't prompt. `env` is its whole environment.
    It runs in a session of its own: a Ctrl-C on our terminal is ours to pass on, and its helpers end with it.
    Raises OSError if it can't be started, OutputTooLarge past the bounds. On these and on cancellation the process
    and all of its group are killed and reaped before this returns.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
    )
    try:
        return await _communicate(process, stdin)
    except BaseException:
        await end_process(process)
        raise


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill the process with its group, and reap it even while the caller is being cancelled."""
    with contextlib.suppress(ProcessLookupError):  # it and its group have ended already
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(_reap(process))


async def _reap(process: asyncio.subprocess.Process) -> None:
    # What is left in the pipes is read, since asyncio closes a pipe only at its end. A helper that left the group
    # could hold one open for ever, hence the limit.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(_CHUNK):
                    pass
    await process.wait()


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes | None) -> Completed:
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    try:
        async with asyncio.TaskGroup() as group:
            stdout = group.create_task(_read(process.stdout, MAX_STDOUT_BYTES))
            stderr = group.create_task(_read(process.stderr, MAX_STDERR_BYTES))
            group.create_task(_write(process.stdin, stdin or b""))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return Completed(await process.wait(), stdout.result(), stderr.result().decode(errors="replace"))


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    while part := await stream.read(_CHUNK):
        total += len(part)
        if total > limit:
            raise OutputTooLarge(f"more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


async def _write(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    # A process that ends without reading everything says why by its exit code and its stderr.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
        await stream.wait_closed()
