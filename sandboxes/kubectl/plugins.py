"""Detects that kubectl waits for its credential plugin, such as one that asks a person to sign in.

kubectl says nothing while it waits, and its own time limits do not end a plugin (record:
plugin-sleeps-request-timeout).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from sandboxes import logs
from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.report import said_by
from sandboxes.kubectl.withheld import ends_in_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sandboxes.kubectl.process import Child, Completed

logger = logging.getLogger(__name__)

PROC = Path("/proc")

_NAME = re.compile(r"[\w.+@-]{1,64}")
# `python /usr/bin/login`, `/bin/sh -e /usr/bin/login`
_MOST_BEFORE_COMMAND = 3


class Waiting(NamedTuple):
    """A credential plugin that does not answer. `sentence` is for callers; `said`: what was printed, for the log."""

    sentence: str
    said: str


class PluginWatch:
    """Runs kubectl processes, and knows whether one of them waits for a credential plugin.

    `commands`: the plugins that the kubeconfig names at present.
    """

    def __init__(self, commands: Callable[[], Iterable[str]] = tuple, *, kubeconfig: str = "") -> None:
        self._commands = commands
        self._kubeconfig = kubeconfig
        self._running: set[Child] = set()
        # The last kubectl that was ended while it waited for a plugin, and when.
        self._ended: Waiting | None = None
        self._ended_at = 0.0

    async def communicate(self, child: Child, stdin: bytes) -> Completed:
        """See Child.communicate. If it is cancelled, log what kubectl and its plugin have printed until then."""
        self._running.add(child)
        found: list[str] = []
        try:
            return await child.communicate(stdin, before_kill=lambda: found.extend(self._plugins_of([child])))
        except asyncio.CancelledError:
            said = said_by(child.said, self._kubeconfig)
            if found:
                self._ended, self._ended_at = Waiting(_sentence(found[0]), said), time.monotonic()
                logger.warning("kubectl was ended while it waited for its credential plugin. It said: %s", said)
            elif said:
                logger.warning("kubectl was ended before it answered. It said: %s", said)
            raise
        finally:
            self._running.discard(child)

    def waiting(self) -> Waiting | None:
        """Return the plugin for which a running kubectl waits, or one that was ended just now; None without any."""
        if self._ended is not None and time.monotonic() - self._ended_at < DEADLINES.plugin_recent:
            return self._ended
        for child in self._running:
            if plugins := self._plugins_of([child]):
                return Waiting(_sentence(plugins[0]), said_by(child.said, self._kubeconfig))
        return None

    def _plugins_of(self, children: Iterable[Child]) -> list[str]:
        """Return the names of the plugins that these kubectls have started and that still run; "" for one unknown."""
        names = list(dict.fromkeys(PurePath(command).name for command in self._commands()))
        if not names:
            return []
        if not PROC.is_dir():
            # Not Linux: a plugin has printed something, and kubectl nothing after it.
            return [_one_of(names) for child in children if ends_in_plugin(child.said)]
        started = [argv for child in children for argv in _started_by(child.pid)]
        return [next((name for name in names if _runs(argv, name)), _one_of(names)) for argv in started]


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ""


def _runs(argv: list[str], name: str) -> bool:
    return any(PurePath(word).name == name for word in argv[:_MOST_BEFORE_COMMAND])


def _sentence(name: str) -> str:
    # The name is the operator's, so it may be anything.
    named = f" {name}" if _NAME.fullmatch(name) and logs.masked(name) == name else ""
    return f"The provisioner's credential plugin{named} did not answer in time"


class _Process(NamedTuple):
    pid: int
    parent: int
    name: str


def _started_by(pid: int) -> Iterator[list[str]]:
    """Yield the arguments of the programs that kubectl has started; a wrapper may stand before kubectl itself."""
    by_parent: dict[int, list[_Process]] = {}
    for one in _processes():
        by_parent.setdefault(one.parent, []).append(one)
    parents = [pid]
    while parents:
        for one in by_parent.get(parents.pop(), ()):
            if one.name == "kubectl":
                parents.append(one.pid)
            else:
                yield _argv(one.pid)


def _processes() -> Iterator[_Process]:
    for directory in PROC.iterdir():
        if not directory.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            stat = (directory / "stat").read_text(encoding="utf-8", errors="replace")
            before, _, after = stat.rpartition(")")
            state, parent = after.split()[:2]
            if state != "Z":
                yield _Process(int(directory.name), int(parent), before.partition("(")[2])


def _argv(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return []
