"""One child process: fed, read within bounds, ended and reaped whatever happens. Knows no kubectl."""

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
    from collections.abc import AsyncGenerator, Mapping, Sequence

# A list of 10,000 sandboxes is about 75 MB (kubectl.md: 191 objects are 1.4 MB).
MAX_STDOUT_BYTES = 128 * 1024 * 1024
MAX_STDERR_BYTES = 1024 * 1024
_CHUNK = 256 * 1024
DRAIN_SECONDS = DEADLINES.drain

# prctl(2), Linux. Loaded here, since between fork and exec a child should do as little as can be.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


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
    Raises OSError if it can't be started, OutputTooLarge past the bounds. On these and on cancellation the process
    and all of its group are killed and reaped before this returns.
    """
    child = await start_process(argv, env=env, reads=stdin is not None)
    return await child.communicate(stdin or b"")


async def start_process(
    argv: Sequence[str], *, env: Mapping[str, str], reads: bool, dies_with_us: bool = False
) -> Child:
    """Start `argv`, which the caller must end by `communicate` or `kill`.

    `reads`: whether it is given a stdin, or an empty one. It runs in a session of its own: a Ctrl-C on our terminal is
    ours to pass on, and its helpers end with it. `dies_with_us`: the kernel ends it if we are killed (Linux); one that
    reads needs that not, since its stdin ends with us. Raises OSError if it can't be started.
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
    """A process that runs, and must be ended by `communicate` or `kill`."""

    def __init__(self, process: asyncio.subprocess.Process, stdout: _Pipe, stderr: _Pipe) -> None:
        self._process = process
        self._stdout = stdout
        self._stderr = stderr
        # What `lines` has read last, without a line feed, and therefore not yielded.
        self.unfinished = b""

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.returncode is not None

    async def communicate(self, stdin: bytes = b"") -> Completed:
        """Give it `stdin`, wait for its end and return what came of it; see run_process."""
        try:
            return await _communicate(self._process, stdin, self._stdout.reader, self._stderr.reader)
        except BaseException:
            await self.kill()
            raise
        finally:
            self._close()

    async def lines(self, limit: int) -> AsyncGenerator[bytes]:
        """Yield its output line by line, without the line feed, until it ends or closes it.

        What it says last without a line feed is not yielded, but `unfinished`. Raises OutputTooLarge if a line is
        longer than `limit`.
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
        """Return when it has ended by itself; its exit code is told by `kill`."""
        await self._process.wait()

    async def kill(self) -> Completed:
        """End it with its group and reap it, even while the caller is being cancelled; return what is known."""
        with contextlib.suppress(ProcessLookupError):  # it and its group have ended already
            os.killpg(self._process.pid, signal.SIGKILL)
        returncode = await asyncio.shield(self._process.wait())
        said = bytearray()
        with contextlib.suppress(TimeoutError, OutputTooLarge):
            async with asyncio.timeout(DRAIN_SECONDS):
                await _read(self._stderr.reader, said, MAX_STDERR_BYTES)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._close()
        return Completed(returncode, b"", said.decode(errors="replace"))

    def _close(self) -> None:
        self._stdout.close()
        self._stderr.close()


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends; runs in the child, before it becomes the program."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Pipe:
    """A pipe whose reading end is ours to close.

    asyncio's own pipes for a child end only when nobody holds them open any more, and its wait() with them: a
    credential plugin that leaves a daemon behind would make every call hang.
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
        """Leave the writing end to the child alone."""
        if self._writing_end_is_open:
            self._writing_end_is_open = False
            os.close(self.writing_end)

    def close(self) -> None:
        self.close_writing_end()
        self._transport.close()


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader
) -> Completed:
    out, err = bytearray(), bytearray()
    try:
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(_read(stdout, out, MAX_STDOUT_BYTES)),
                group.create_task(_read(stderr, err, MAX_STDERR_BYTES)),
            ]
            writer = group.create_task(_write(process.stdin, stdin or b""))
            await process.wait()
            # Normally at once. A helper that outlives the process can hold its output open for ever.
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
    # A process that ends without reading everything says why by its exit code and its stderr.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
        await stream.wait_closed()
