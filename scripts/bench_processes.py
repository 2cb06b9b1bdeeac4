"""Reads processes for scripts/bench.py: memory, CPU time, and the one that listens at an address. Linux only."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from scripts.bench_clients import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def process_tree(pid: int) -> list[int]:
    """Return the process and all its visible descendants."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended
            for path in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


class Held(NamedTuple):
    """The memory of a process in MB of 10^6 bytes: PSS, which divides shared pages, and RSS, which does not."""

    pid: int
    pss: float
    rss: float

    def __str__(self) -> str:
        return f"{self.pss:.1f} MB PSS ({self.rss:.1f} RSS)"


def held(pid: int) -> list[Held]:
    """Return the memory of a process, first, and of its descendants. Raises Failed if it can't be read."""
    found = []
    for one in process_tree(pid):
        with suppress(OSError):  # it has ended
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            kilobytes = dict(re.findall(r"(?m)^(Pss|Rss): +(\d+)", text))
            if kilobytes:  # empty while the process exits
                found.append(Held(one, *(int(kilobytes[name]) * 1024 / 1e6 for name in ("Pss", "Rss"))))
    if not found or found[0].pid != pid:
        raise Failed(f"there is no process {pid} whose memory can be read")
    return found


def memory(pid: int) -> str:
    """Describe the total memory of a process and its descendants. Raises Failed if it can't be read."""
    found = held(pid)
    return f"{sum(one.pss for one in found):.1f} MB in {len(found)} processes"


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a process, and those of all its children, ended or not. Raises Failed if it has ended.

    Reads again if a child ended meanwhile, which might be missed or counted twice.
    """
    while True:
        own, system, *ended = _ticks(pid)
        living = 0
        for one in process_tree(pid)[1:]:
            with suppress(Failed):  # it has ended
                living += sum(_ticks(one))
        if _ticks(pid)[2:] == tuple(ended):
            second = os.sysconf("SC_CLK_TCK")
            return (own + system) / second, (sum(ended) + living) / second


def _ticks(pid: int) -> tuple[int, ...]:
    """Return utime, stime, cutime and cstime: of the process, and of the children that it has waited for."""
    try:
        # The name, in parentheses, may contain blanks and parentheses.
        return tuple(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    except OSError as error:
        raise Failed(f"there is no process {pid} whose CPU time can be read") from error


def listener(url: str) -> int | None:
    """Return the process that listens at a URL of this machine, or None if it is not visible."""
    parts = urlsplit(url)
    if parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with suppress(OSError):  # there is no /proc
        rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if any(link.resolve().name in sockets for link in (process / "fd").iterdir()):
                    return int(process.name)
    return None


def leash() -> Callable[[], None]:
    """Return a preexec_fn that makes the process end, even if it is stopped, when this one is killed."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
