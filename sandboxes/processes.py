"""One child process, well kept: fed, read within bounds, ended and reaped whatever happens. Knows no kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

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
    async with _Pipe() as stdout, _Pipe() as stderr:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=stdout.writing_end,
            stderr=stderr.writing_end,
            env=dict(env),
            start_new_session=True,
        )
        stdout.close_writing_end()
        stderr.close_writing_end()
        try:
            return await _communicate(process, stdin, stdout.reader, stderr.reader)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it and its group have ended already
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
            raise


class _Pipe:
    """A pipe whose reading end is ours to close.

    asyncio's own pipes for a child end only when nobody holds them open any more, and its wait() with them: a
    credential plugin that leaves a daemon behind would make every call hang.
    """

    async def __aenter__(self) -> Self:
        reading_end, self.writing_end = os.pipe()
        self._writing_end_open = True
        self.reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), os.fdopen(reading_end, "rb", buffering=0)
        )
        return self

    def close_writing_end(self) -> None:
        """Leave the writing end to the child alone."""
        if self._writing_end_open:
            self._writing_end_open = False
            os.close(self.writing_end)

    async def __aexit__(self, *_: object) -> None:
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
            await asyncio.wait([*readers, writer], timeout=_DRAIN_SECONDS)
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
