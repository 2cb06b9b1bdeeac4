"""From latencies to what is reported: percentiles, rates, medians over the rounds, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

PROVISIONER = "provisioner"
DIRECT = "direct"
HEALTH = "health"
CREATE = "create"
GET = "get"
LIST = "list"
DELETE = "delete"


@dataclass(frozen=True)
class Phase:
    """What was done (`create`), and by how many callers at once."""

    work: str
    callers: int


@dataclass(frozen=True)
class Sample:
    """One phase of one round: the latencies of its good answers, how long all of it took, how many failed; seconds."""

    latencies: tuple[float, ...]
    seconds: float
    errors: int

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True)
class Figures:
    """What is reported of a phase. `requests` and `errors` are of all rounds; without a good answer all is None."""

    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    rate_per_s: float | None


@dataclass(frozen=True)
class Ratio:
    """The provisioner's median latency and rate, divided by those of `to` (`direct`, or `health`)."""

    work: str
    callers: int
    to: str
    p50: float
    rate: float


Samples: TypeAlias = dict[str, dict[Phase, list[Sample]]]
Results: TypeAlias = dict[str, dict[Phase, Figures]]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` (at least one) that at least `percent` % of them don't exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summarise(samples: Sequence[Sample]) -> Figures:
    """Return the medians over the rounds."""
    requests = sum(len(sample.latencies) + sample.errors for sample in samples)
    errors = sum(sample.errors for sample in samples)
    good = [sample for sample in samples if sample.latencies]
    if not good:
        return Figures(requests, errors, None, None, None, None)
    p50, p95, p99 = (
        statistics.median(percentile(sample.latencies, percent) * 1000 for sample in good) for percent in (50, 95, 99)
    )
    return Figures(requests, errors, p50, p95, p99, statistics.median(sample.rate for sample in good))


def results_of(samples: Samples) -> Results:
    """Return the figures of every phase, in the order in which they were first run."""
    return {
        target: {phase: summarise(rounds) for phase, rounds in phases.items()} for target, phases in samples.items()
    }


def ratios_of(results: Results) -> list[Ratio]:
    """Return what can be compared: every phase with direct's, and a get with the health of as many callers."""
    ours, direct = results.get(PROVISIONER, {}), results.get(DIRECT, {})
    found = []
    for phase, figures in ours.items():
        found += _ratio(phase, DIRECT, figures, direct.get(phase))
        if phase.work == GET:
            found += _ratio(phase, HEALTH, figures, ours.get(Phase(HEALTH, phase.callers)))
    return found


def as_rows(results: Results) -> list[dict[str, object]]:
    """Return the figures as flat records, for JSON."""
    return [
        {"target": target, **asdict(phase), **asdict(figures)}
        for target, phases in results.items()
        for phase, figures in phases.items()
    ]


def _ratio(phase: Phase, to: str, ours: Figures, theirs: Figures | None) -> list[Ratio]:
    if theirs is None or not ours.p50_ms or not ours.rate_per_s or not theirs.p50_ms or not theirs.rate_per_s:
        return []
    p50, rate = ours.p50_ms / theirs.p50_ms, ours.rate_per_s / theirs.rate_per_s
    return [Ratio(phase.work, phase.callers, to, p50, rate)]
