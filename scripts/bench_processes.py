"""What scripts/bench.py reads of processes: their memory, and who listens at an address (Linux)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
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


def memory(pid: int) -> str:
    """Return how much a process and its children hold together. Raises Failed if that can't be read."""
    kilobytes: list[str] = []
    for one in process_tree(pid):
        with suppress(OSError):  # it has ended
            kilobytes += re.findall(r"(?m)^Pss: +(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text())
    if not kilobytes:
        raise Failed(f"there is no process {pid} whose memory can be read")
    return f"{sum(map(int, kilobytes)) * 1024 / 1e6:.1f} MB in {len(kilobytes)} processes"


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
