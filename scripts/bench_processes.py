"""What scripts/bench.py reads of processes: their memory, their CPU time, and who listens at an address (Linux)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from scripts.bench_clients import Failed


def process_tree(pid: int) -> list[int]:
    """Return the process and all that descend from it, as far as they can be seen (Linux)."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended
            for path in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


class Held(NamedTuple):
    """What one process holds, in MB of 10^6 bytes: PSS, where what is shared is divided, and RSS, where it is not."""

    pid: int
    pss: float
    rss: float

    def __str__(self) -> str:
        return f"{self.pss:.1f} MB PSS ({self.rss:.1f} RSS)"


def held(pid: int) -> list[Held]:
    """Return what a process, the first, and its children hold. Raises Failed if that can't be read."""
    found = []
    for one in process_tree(pid):
        with suppress(OSError):  # it has ended
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            kilobytes = dict(re.findall(r"(?m)^(Pss|Rss): +(\d+)", text))
            if kilobytes:  # else it is ending
                found.append(Held(one, *(int(kilobytes[name]) * 1024 / 1e6 for name in ("Pss", "Rss"))))
    if not found or found[0].pid != pid:
        raise Failed(f"there is no process {pid} whose memory can be read")
    return found


def memory(pid: int) -> str:
    """Return how much a process and its children hold together. Raises Failed if that can't be read."""
    found = held(pid)
    return f"{sum(one.pss for one in found):.1f} MB in {len(found)} processes"


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the CPU time of a process and that of all its children, ended or not. Raises Failed if it has ended.

    A child that ends between two looks would be missed, or counted twice: then it is looked again.
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
    """Return utime, stime, cutime and cstime: its own, and those of its children that it has waited for."""
    try:
        # The name in parentheses may hold anything, blanks and parentheses too.
        return tuple(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    except OSError as error:
        raise Failed(f"there is no process {pid} whose CPU time can be read") from error


def listener(url: str) -> int | None:
    """Return the process that listens at a URL of this machine, where that can be seen (Linux)."""
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
