"""What was measured, as a table for people and as JSON. Pure."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from scripts.bench.figures import DIRECT, HEALTH, Phase, Ratio, Results, as_rows, ratios_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.bench.figures import Figures
    from scripts.bench.memory import Memory
    from scripts.bench.phases import Tally
    from scripts.bench.rounds import Plan

_NONE = "-"


@dataclass
class Report:
    """A run: what was asked for, and what came of it. `left` are sandboxes that could not be deleted."""

    base_url: str
    plan: Plan
    results: Results
    tally: Tally
    memory: Sequence[Memory] = ()
    problem: str | None = None
    left: set[str] = field(default_factory=set)

    @property
    def is_good(self) -> bool:
        """Whether all was done, all was answered as it should be, and nothing is left behind."""
        return not (self.problem or self.left or self.tally.errors or self.tally.stopped)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures say of each other."""
        return ratios_of(self.results)


def as_json(report: Report) -> str:
    """Return the report as one JSON object."""
    document = {
        "base_url": report.base_url,
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "plan": asdict(report.plan),
        "phases": as_rows(report.results),
        "ratios": [asdict(ratio) for ratio in report.ratios],
        "memory": [asdict(memory) for memory in report.memory],
        **asdict(report.tally),
        "problem": report.problem,
        "left_behind": sorted(report.left),
    }
    return json.dumps(document, indent=2) + "\n"


def as_table(report: Report) -> str:
    """Return the report as text: one line a phase, direct beside the provisioner."""
    plan = report.plan
    title = f"{report.base_url}: medians over {_several(plan.rounds, 'round')}"
    phase = f"a phase is {plan.count} sandboxes or lists (at least one a caller), or {plan.reads} gets"
    parts = [f"{title}; {phase}", _phases(report)]
    if report.memory:
        held = [
            f"  {one.when:<24}{one.pss_mb:8.1f} MB in {_several(one.processes, 'process', 'es')}"
            for one in report.memory
        ]
        parts.append("\n".join(["memory (PSS, children included; Linux only)", *held]))
    parts.append(_verdict(report))
    return "\n\n".join(parts) + "\n"


def _phases(report: Report) -> str:
    ours, *others = report.results.items()
    direct = dict(others).get(DIRECT)
    ratios = {(ratio.to, ratio.work, ratio.callers): ratio for ratio in report.ratios}
    names = f"{'':<20}{'provisioner':>36}"
    header = f"{'phase':<12}{'callers':>8}" + _HEADINGS
    if direct is not None:
        names += f"{'direct':>36}{'p/d':>8}{'p/d':>8}"
        header += _HEADINGS + f"{'p50':>8}{'rate':>8}"
    names += f"{'p/health':>10}{'p/health':>10}"
    header += f"{'p50':>10}{'rate':>10}"
    lines = [names.rstrip(), header]
    for phase, figures in ours[1].items():
        line = f"{phase.work:<12}{phase.callers:>8}{_figures(figures)}"
        if direct is not None:
            line += _figures(direct.get(phase)) + _ratio(ratios.get(_key(DIRECT, phase)), 8)
        lines.append((line + _ratio(ratios.get(_key(HEALTH, phase)), 10)).rstrip())
    return "\n".join(lines)


_HEADINGS = f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'1/s':>9}"


def _key(to: str, phase: Phase) -> tuple[str, str, int]:
    return to, phase.work, phase.callers


def _figures(figures: Figures | None) -> str:
    if figures is None:
        return " " * 36
    values = (figures.p50_ms, figures.p95_ms, figures.p99_ms, figures.rate_per_s)
    return "".join(f"{_NONE if value is None else _short(value):>9}" for value in values)


def _short(value: float) -> str:
    """Return three or more digits that matter."""
    return f"{value:#.4g}".rstrip(".") if value >= 1 else f"{value:.3f}"


def _several(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{'' if count == 1 else ending}"


def _ratio(ratio: Ratio | None, width: int) -> str:
    return " " * 2 * width if ratio is None else f"{_short(ratio.p50):>{width}}{_short(ratio.rate):>{width}}"


def _verdict(report: Report) -> str:
    tally = report.tally
    lines = []
    if report.problem:
        lines.append(report.problem)
    if tally.stopped:
        lines.append(f"Stopped early: {tally.stopped}. Phases that were not finished are left out.")
    if tally.errors:
        lines.append(f"{tally.errors} of {tally.requests} requests failed, among them:")
        lines += [f"  {count} x {words}" for words, count in tally.examples.items()]
    if report.left:
        lines.append(f"LEFT BEHIND, {len(report.left)} sandboxes: {' '.join(sorted(report.left)[:10])} …")
    return "\n".join(lines) or f"{tally.requests} requests, all answered as they should be; nothing left behind."
