"""Runs child processes with bounded output, and always kills and reaps them. Knows no kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sandboxes.deadlines import DEADLINES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

# A list of 10,000 sandboxes is about 75 MB (kubectl.md: 191 objects are 1.4 MB).
MAX_STDOUT_BYTES = 128 * 1024 * 1024
MAX_STDERR_BYTES = 1024 * 1024
_CHUNK = 256 * 1024
DRAIN_SECONDS = DEADLINES.drain

# prctl(2), Linux. Loaded at import, since a child should do as little as possible between fork and exec.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class OutputTooLarge(Exception):
    """The process wrote more than the limit and was killed."""


@dataclass(frozen=True)
class Completed:
    """Exit code and output of a process; a negative exit code is the signal that killed it."""

    returncode: int
    stdout: bytes
    stderr: str


async def run_process(argv: Sequence[str], *, stdin: bytes | None, env: Mapping[str, str]) -> Completed:
    """Run `argv` until it exits, and return exit code and output.

    With `stdin` None it reads /dev/null, so that it can't prompt. `env` is its whole environment. Raises OSError if it
    can't be started, OutputTooLarge above the limits. On errors and cancellation the process and its group are killed
    and reaped before this returns.
    """
    child = await start_process(argv, env=env, reads=stdin is not None)
    return await child.communicate(stdin or b"")


async def start_process(
    argv: Sequence[str], *, env: Mapping[str, str], reads: bool, dies_with_us: bool = False
) -> Child:
    """Start `argv`; the caller must call `communicate` or `kill`. Raises OSError if it can't be started.

    `reads`: give it a pipe as stdin, else /dev/null. The process has its own session, so that a Ctrl-C does not reach
    it and its helpers can be killed with it. `dies_with_us`: the kernel kills it when this process dies (Linux); not
    needed with `reads`, since its stdin is closed then.
    """
    stdout = await _Pipe.open()
    try:
        stderr = await _Pipe.open()
    except BaseException:
        stdout.close()
        raise
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if reads else asyncio.subprocess.DEVNULL,
            stdout=stdout.writing_end,
            stderr=stderr.writing_end,
            env=dict(env),
            start_new_session=True,
            preexec_fn=_die_with_parent if dies_with_us else None,
        )
    except BaseException:
        stdout.close()
        stderr.close()
        raise
    stdout.close_writing_end()
    stderr.close_writing_end()
    return Child(process, stdout, stderr)


class Child:
    """A running process; the owner must call `communicate` or `kill`."""

    def __init__(self, process: asyncio.subprocess.Process, stdout: _Pipe, stderr: _Pipe) -> None:
        self._process = process
        self._stdout = stdout
        self._stderr = stderr
        self._said = bytearray()
        # What `lines` has read last, without a line feed, and therefore not yielded.
        self.unfinished = b""

    @property
    def has_ended(self) -> bool:
        """Whether the process has exited."""
        return self._process.returncode is not None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def said(self) -> str:
        """What it and its helpers have written to stderr, as far as `communicate` or `kill` has read it."""
        return self._said.decode(errors="replace")

    async def communicate(self, stdin: bytes = b"", *, before_kill: Callable[[], object] = lambda: None) -> Completed:
        """Write `stdin`, wait until the process exits, and return exit code and output; see run_process.

        `before_kill` is called before an error or cancellation kills the process.
        """
        try:
            return await _communicate(self._process, stdin, self._stdout.reader, self._stderr.reader, self._said)
        except BaseException:
            try:
                before_kill()
            finally:
                await self.kill()
            raise
        finally:
            self._close()

    async def lines(self, limit: int) -> AsyncGenerator[bytes]:
        """Yield the lines of stdout, without line feeds, until it is closed.

        An incomplete last line is not yielded, but kept in `unfinished`. Raises OutputTooLarge if a line is longer than
        `limit` bytes.
        """
        pending = bytearray()
        while part := await self._stdout.reader.read(_CHUNK):
            *complete, rest = part.split(b"\n")
            for line in complete:
                yield bytes(pending) + line
                pending.clear()
            pending += rest
            if len(pending) > limit:
                raise OutputTooLarge(f"a line of more than {limit} bytes")
        self.unfinished = bytes(pending)

    async def ends(self) -> None:
        """Wait until the process exits; then call `kill` for its exit code."""
        await self._process.wait()

    async def kill(self) -> Completed:
        """Kill the process group and reap the process, also during cancellation; return exit code and stderr."""
        with contextlib.suppress(ProcessLookupError):  # the whole group has exited
            os.killpg(self._process.pid, signal.SIGKILL)
        returncode = await asyncio.shield(self._process.wait())
        with contextlib.suppress(TimeoutError, OutputTooLarge):
            async with asyncio.timeout(DRAIN_SECONDS):
                await _read(self._stderr.reader, self._said, MAX_STDERR_BYTES)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._close()
        return Completed(returncode, b"", self.said)

    def _close(self) -> None:
        self._stdout.close()
        self._stderr.close()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; runs in the child before exec."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Pipe:
    """A pipe whose reading end the service closes.

    asyncio's own pipes, and its wait(), end only when every writer has closed them: a credential plugin that leaves a
    daemon behind would make every call hang.
    """

    def __init__(self, writing_end: int, reader: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self.writing_end = writing_end
        self.reader = reader
        self._transport = transport
        self._writing_end_is_open = True

    @classmethod
    async def open(cls) -> Self:
        reading_end, writing_end = os.pipe()
        reader = asyncio.StreamReader()
        file = os.fdopen(reading_end, "rb", buffering=0)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), file
            )
        except BaseException:
            file.close()
            os.close(writing_end)
            raise
        return cls(writing_end, reader, transport)

    def close_writing_end(self) -> None:
        """Close this process's copy of the writing end."""
        if self._writing_end_is_open:
            self._writing_end_is_open = False
            os.close(self.writing_end)

    def close(self) -> None:
        self.close_writing_end()
        self._transport.close()


async def _communicate(
    process: asyncio.subprocess.Process,
    stdin: bytes | None,
    stdout: asyncio.StreamReader,
    stderr: asyncio.StreamReader,
    err: bytearray,
) -> Completed:
    out = bytearray()
    try:
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(_read(stdout, out, MAX_STDOUT_BYTES)),
                group.create_task(_read(stderr, err, MAX_STDERR_BYTES)),
            ]
            writer = group.create_task(_write(process.stdin, stdin or b""))
            await process.wait()
            # Usually immediate, but a helper that outlives the process can keep its output open.
            await asyncio.wait([*readers, writer], timeout=DRAIN_SECONDS)
            for task in (*readers, writer):
                task.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return Completed(process.returncode or 0, bytes(out), err.decode(errors="replace"))


async def _read(stream: asyncio.StreamReader, into: bytearray, limit: int) -> None:
    while part := await stream.read(_CHUNK):
        into += part
        if len(into) > limit:
            raise OutputTooLarge(f"more than {limit} bytes")


async def _write(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    # A process that exits before reading everything explains itself by its exit code and stderr.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
        await stream.wait_closed()
