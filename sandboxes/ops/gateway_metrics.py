"""Metrics of the gateway, read at each scrape. No label value is an id, or text from a caller."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sandboxes.ops.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

# Seconds. Within a cluster a dial takes a fraction of a millisecond; a lost packet costs a second.
_DIAL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.5, 5.0)

_REQUESTS = "provisioner_gateway_requests_total"
_BYTES = "provisioner_gateway_bytes_total"
_OPEN = "provisioner_gateway_open"
_DIAL = "provisioner_gateway_dial_seconds"
_FAILURES = "provisioner_gateway_failures_total"

GATEWAY_FAMILIES = {
    family.name: family
    for family in (
        Family(
            _REQUESTS,
            "counter",
            ("kind", "status"),
            "Requests to sandboxes. `kind`: `http` or `websocket`; `status`: of the response, `0` if the caller left "
            "before it.",
            of_cluster=False,
        ),
        Family(
            _BYTES,
            "counter",
            ("from",),
            "Bytes that were passed on, heads included, from `callers` and from `sandboxes`.",
            of_cluster=False,
        ),
        Family(_OPEN, "gauge", (), "Requests and WebSockets under way.", of_cluster=False),
        Family(_DIAL, "histogram", (), "Time of a dial that succeeded.", _DIAL_BUCKETS, of_cluster=False),
        Family(_FAILURES, "counter", ("kind",), "Requests that failed at the gateway, by kind.", of_cluster=False),
    )
}


class GatewayCounts(Collector):
    """Counts what the gateway does; see GatewayMetrics. `registry`: where the metrics are shown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answered: Counter[tuple[str, int]] = Counter()
        self._failed: Counter[str] = Counter()
        self._open = self._from_callers = self._from_sandboxes = 0
        dial = GATEWAY_FAMILIES[_DIAL]
        self._dials = Histogram(dial.name, dial.meaning, buckets=dial.buckets, registry=registry)
        registry.register(self)

    def answered(self, kind: str, status: int) -> None:
        """See GatewayMetrics."""
        self._answered[kind, status] += 1

    def moved(self, from_callers: int, from_sandboxes: int) -> None:
        """See GatewayMetrics."""
        self._from_callers += from_callers
        self._from_sandboxes += from_sandboxes

    def changed_open(self, by: int) -> None:
        """See GatewayMetrics."""
        self._open += by

    def dialled(self, seconds: float) -> None:
        """See GatewayMetrics."""
        self._dials.observe(seconds)

    def failed(self, kind: str) -> None:
        """See GatewayMetrics."""
        self._failed[kind] += 1

    def describe(self) -> Iterable[Metric]:
        """Return nothing. Names in GATEWAY_FAMILIES are unique."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the current value of each metric but the histogram."""
        yield _counter(_REQUESTS, {(kind, str(status)): number for (kind, status), number in self._answered.items()})
        moved: dict[tuple[str, ...], int] = {("callers",): self._from_callers, ("sandboxes",): self._from_sandboxes}
        yield _counter(_BYTES, moved)
        yield GaugeMetricFamily(_OPEN, GATEWAY_FAMILIES[_OPEN].meaning, value=self._open)
        yield _counter(_FAILURES, {(kind,): number for kind, number in self._failed.items()})


def _counter(name: str, values: Mapping[tuple[str, ...], int]) -> CounterMetricFamily:
    one = GATEWAY_FAMILIES[name]
    made = CounterMetricFamily(name, one.meaning, labels=one.labels)
    for labels, number in values.items():
        made.add_metric(labels, number)
    return made
