"""The memory of a process and of all that descend from it. Linux only: it reads /proc."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.client import BenchError

PROC = Path("/proc")

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """The sum of PSS in MB of 10^6 bytes, and of how many processes: what they share is counted once."""

    when: str
    pss_mb: float
    processes: int


def measure(pid: int, when: str) -> Memory:
    """Return what the process and its descendants hold now; raises BenchError if that can't be read."""
    sizes = [size for one in _tree(pid) if (size := _pss_bytes(one)) is not None]
    if not sizes:
        raise BenchError(f"There is no process {pid} whose memory can be read.")
    return Memory(when, sum(sizes) / 1e6, len(sizes))


def _tree(root: int) -> list[int]:
    children = defaultdict(list)
    for path in PROC.glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything; state and parent come after it.
            parent = int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children[parent].append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def _pss_bytes(pid: int) -> int | None:
    """Return a process's PSS, or None if it has ended; a zombie holds nothing."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError as error:
        raise BenchError(f"The memory of process {pid} may not be read by this user.") from error
    match = _PSS.search(text)
    return int(match[1]) * 1024 if match else 0
