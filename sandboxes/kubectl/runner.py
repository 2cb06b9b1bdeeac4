"""Starts the kubectl binary with one cluster's flags and environment; the seam at which tests stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sandboxes.kubectl.process import Child, Completed, run_process, start_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


# A call that reads a few objects on stdin ends before collecting its garbage pays: without, one apply takes 39 ms of
# CPU instead of 52. Not for lists and watches, whose memory has no such bound.
_LITTLE_GARBAGE_COLLECTION = {"GOGC": "400"}


class Runner(Protocol):
    """What runs kubectl with `args` and returns what came of it; the seam at which tests stand."""

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Run to the end. Raises OSError if kubectl can't be started; ends it on cancellation."""
        ...


@dataclass(frozen=True)
class KubectlRunner:
    """Runs the real binary with the flags and the environment of one cluster.

    `flags` go before the verb; `env` is all that kubectl sees of our environment, so secrets stay out of it.
    `before_start` is called before each process starts, which then reads its kubeconfig.
    """

    binary: Path
    flags: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    before_start: Callable[[], object] = field(default=lambda: None, repr=False)

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Run kubectl once; see Runner."""
        self.before_start()
        env = self.env if stdin is None else self._env_of_short_calls
        return await run_process([str(self.binary), *self.flags, *args], stdin=stdin, env=env)

    async def start(self, args: Sequence[str], *, reads: bool) -> Child:
        """Start kubectl and return it running: one that `reads` waits for its stdin, another one goes on for long."""
        self.before_start()
        argv = [str(self.binary), *self.flags, *args]
        env = self._env_of_short_calls if reads else self.env
        return await start_process(argv, env=env, reads=reads, dies_with_us=not reads)

    @property
    def kubeconfig(self) -> str:
        """The path of the kubeconfig; empty if none is named."""
        return next((flag.partition("=")[2] for flag in self.flags if flag.startswith("--kubeconfig=")), "")

    @property
    def _env_of_short_calls(self) -> Mapping[str, str]:
        return {**_LITTLE_GARBAGE_COLLECTION, **self.env}
