"""Starts the kubectl binary with the flags and environment of one cluster; tests replace this layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sandboxes.kubectl.plugins import PluginWatch
from sandboxes.kubectl.process import Child, Completed, start_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


# kubectl needs little memory, so garbage collection costs more than it saves: an apply takes 39 ms of CPU instead of
# 52, the start of a watch 42 instead of 56. Raw lists and watches are copied: they take 49 MB instead of 48.
_LITTLE_GARBAGE_COLLECTION = {"GOGC": "400"}


class Runner(Protocol):
    """Runs kubectl with `args`; tests pass their own implementation."""

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Run kubectl until it exits. Raises OSError if it can't be started; cancellation kills it."""
        ...


@dataclass(frozen=True)
class KubectlRunner:
    """Runs the real binary with the flags and environment of one cluster.

    `flags` precede the verb. `env` is kubectl's whole environment; the service's own secrets are not in it.
    `before_start` is called before each start of a process, and so before it reads the kubeconfig. `plugins` runs the
    short calls.
    """

    binary: Path
    flags: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    before_start: Callable[[], object] = field(default=lambda: None, repr=False)
    plugins: PluginWatch = field(default_factory=PluginWatch, repr=False)

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Run kubectl once; see Runner."""
        self.before_start()
        argv = [str(self.binary), *self.flags, *args]
        child = await start_process(argv, env=self._environment, reads=stdin is not None)
        return await self.plugins.communicate(child, stdin or b"")

    async def start(self, args: Sequence[str], *, reads: bool) -> Child:
        """Start kubectl and return the running process: a short call that `reads` stdin, or a long-running one."""
        self.before_start()
        argv = [str(self.binary), *self.flags, *args]
        return await start_process(argv, env=self._environment, reads=reads, dies_with_us=not reads)

    @property
    def kubeconfig(self) -> str:
        """Path of the kubeconfig, several as in KUBECONFIG; empty if none is named."""
        named = (flag.partition("=")[2] for flag in self.flags if flag.startswith("--kubeconfig="))
        return next(named, self.env.get("KUBECONFIG", ""))

    @property
    def context(self) -> str:
        """Context of the kubeconfig; empty for the current one."""
        return next((flag.partition("=")[2] for flag in self.flags if flag.startswith("--context=")), "")

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**_LITTLE_GARBAGE_COLLECTION, **self.env}
