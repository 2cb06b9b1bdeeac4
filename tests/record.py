"""Reads the recorded calls of a real kubectl to a real cluster (tests/recorded)."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Case:
    """One recorded call. `stdout` is parsed if it was JSON."""

    name: str
    argv: tuple[str, ...]
    stdin: Any
    returncode: int
    stdout: Any
    stderr: str

    @property
    def items(self) -> list[dict[str, Any]]:
        """The objects in stdout."""
        assert isinstance(self.stdout, dict)
        return self.stdout["items"] if self.stdout["kind"].endswith("List") else [self.stdout]


@functools.cache
def case(name: str) -> Case:
    """Return one recorded case."""
    raw = json.loads((RECORDED / "kubectl" / f"{name}.json").read_text(encoding="utf-8"))
    returncode = raw["rc"] if isinstance(raw["rc"], int) else -9
    return Case(raw["case"], tuple(raw["argv"]), raw.get("stdin"), returncode, raw["stdout"], raw["stderr"])


@functools.cache
def case_names() -> tuple[str, ...]:
    """Return the names of all recorded calls of kubectl."""
    return tuple(sorted(path.stem for path in (RECORDED / "kubectl").glob("*.json")))


def recorded_pods() -> dict[str, dict[str, Any]]:
    """Return the recorded Pods, each in a different state, by the name of their case."""
    pods = {name: case(name).stdout for name in case_names() if name.startswith("pod-")}
    return {name: pod for name, pod in pods.items() if pod["kind"] == "Pod"}


def watch_events() -> list[dict[str, Any]]:
    """Return the recorded watch stream of Pods; cached, as all of the record: do not modify it."""
    return list(_watch_events())


@functools.cache
def _watch_events() -> tuple[dict[str, Any], ...]:
    lines = (RECORDED / "kubectl" / "watch-pods.ndjson").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines if line.strip())


def events_about(pod: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Return the Events of the recorded case `name`, with this Pod as the involved object."""
    assert pod is not None
    events = copy.deepcopy(case(name).items)
    metadata = pod["metadata"]
    for event in events:
        event["metadata"]["namespace"] = metadata["namespace"]
        event["involvedObject"] |= {key: metadata[key] for key in ("name", "uid", "namespace")}
    return events
