"""What the process counts and measures of itself, for Prometheus: one registry for each application.

Others report through the listeners that they offer, or are read at the time of a scrape; none of them knows this
module. No label's value is an id or a caller's word, so the number of series has a bound. Never touches the cluster.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sandboxes import objects as kube
from sandboxes.status.reasons import readiness_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.sandboxes import SandboxService

# Seconds. A read of the live view takes less than 1 ms; a create has 21 s (deadlines.py).
_REQUEST_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
_CALL_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
# A startup probe asks once a second, for two minutes by default.
_READY_BUCKETS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_GROUP_BUCKETS = (1, 2, 4, 8, 16, 32, 50)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Made Pods of which it is awaited that they get ready; of more, the oldest are forgotten.
_MOST_AWAITED = 10_000


@dataclass(frozen=True)
class Family:
    """One metric as it is described; histograms are in seconds but for group sizes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "provisioner_http_request_seconds",
            "histogram",
            ("method", "route", "status"),
            "Time until a request was answered. `route` is a template; `unmatched`: no route.",
            _REQUEST_BUCKETS,
        ),
        Family(
            "provisioner_failures_total", "counter", ("kind",), "Requests that failed, by class of error; `Bug`: a bug."
        ),
        Family(
            "provisioner_kubectl_call_seconds",
            "histogram",
            ("verb", "outcome"),
            "Time of a call of kubectl, its wait for a free process included. `outcome`: `ok` or a class of error.",
            _CALL_BUCKETS,
        ),
        Family(
            "provisioner_kubectl_processes",
            "gauge",
            ("state",),
            "kubectl processes: `running` a call, `waiting` (started ahead), `watching`.",
        ),
        Family(
            "provisioner_queue_length",
            "gauge",
            ("work",),
            "What waits now, by kind of work; `process`: calls that wait for a free process.",
        ),
        Family(
            "provisioner_group_size",
            "histogram",
            ("work",),
            "Requests that were done together in one call of kubectl.",
            _GROUP_BUCKETS,
        ),
        Family(
            "provisioner_view_age_seconds",
            "gauge",
            (),
            "Time since the live view was last shown to be current; `+Inf` while a watch has failed.",
        ),
        Family("provisioner_view_fresh", "gauge", (), "1 if reads are answered from the live view, else 0."),
        Family("provisioner_watch_restarts_total", "counter", ("resource",), "Watches that ended before their time."),
        Family(
            "provisioner_sandboxes",
            "gauge",
            ("status",),
            "Sandboxes in the namespace, as the live view has them; none while it is not fresh.",
        ),
        Family(
            "provisioner_create_to_ready_seconds",
            "histogram",
            (),
            "Time from the request that made a sandbox until its Pod was Ready. Takes the live view.",
            _READY_BUCKETS,
        ),
        Family(
            "provisioner_reaped_total",
            "counter",
            ("reason",),
            "What the reaper has deleted: `expired`, `idle`, `ended`, `half`, and single objects that were `leftover`.",
        ),
    )
}


class Metrics:
    """The metrics of one application; those of the process (`process_…`) are among them."""

    def __init__(self, service: SandboxService) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._histogram("provisioner_http_request_seconds")
        # Looked up for each request: prometheus-client's own way to a child takes longer.
        self._requests_by: dict[tuple[str, str, int], Histogram] = {}
        self._failures = self._counter("provisioner_failures_total")
        self._calls = self._histogram("provisioner_kubectl_call_seconds")
        self._groups = self._histogram("provisioner_group_size")
        self._reaped = self._counter("provisioner_reaped_total")
        ready_seconds = self._histogram("provisioner_create_to_ready_seconds")
        self._present = _Present(service)
        self._registry.register(self._present)
        cluster = service.cluster
        cluster.kubectl.called.connect(
            lambda verb, outcome, seconds: self._calls.labels(verb, outcome).observe(seconds)
        )
        if cluster.batched is not None:
            cluster.batched.began.connect(lambda work, size: self._groups.labels(work).observe(size))
        service.reaper.reaped.connect(lambda reason: self._reaped.labels(reason).inc())
        if cluster.has_informer:
            ready_times = _ReadyTimes(cluster, ready_seconds.observe)
            cluster.exchanged.connect(ready_times.on_exchange)
            service.made.connect(ready_times.on_made)

    def read_waiting(self, waiting: Callable[[], int]) -> None:
        """Have `waiting` asked, at each scrape, how many kubectl processes wait."""
        self._present.waiting = waiting

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template, never its path."""
        key = (method if method in _METHODS else "other", route, status)
        child = self._requests_by.get(key)
        if child is None:
            child = self._requests_by[key] = self._requests.labels(*key)
        child.observe(seconds)

    def failed(self, kind: str) -> None:
        """Count a request that was answered with an error; `kind` is the error's class."""
        self._failures.labels(kind).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics, and their content type, in the format that the `Accept` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _histogram(self, name: str) -> Histogram:
        one = FAMILIES[name]
        return Histogram(name, one.meaning, one.labels, buckets=one.buckets, registry=self._registry)

    def _counter(self, name: str) -> Counter:
        one = FAMILIES[name]
        return Counter(name, one.meaning, one.labels, registry=self._registry)


class _Present(Collector):
    """What is read at the time of a scrape."""

    def __init__(self, service: SandboxService) -> None:
        self._service = service
        self.waiting: Callable[[], int] = lambda: 0

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names in FAMILIES are unique already, and asking would read before there is anything."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric as it is now."""
        cluster = self._service.cluster
        processes = {"running": cluster.kubectl.running, "waiting": self.waiting()}
        if cluster.has_informer:
            processes["watching"] = cluster.informer_state.watching
        yield _gauge("provisioner_kubectl_processes", processes)
        yield _gauge("provisioner_queue_length", cluster.queues())
        if not cluster.has_informer:
            return
        state = cluster.informer_state
        yield _gauge("provisioner_view_age_seconds", state.age)
        yield _gauge("provisioner_view_fresh", float(state.is_fresh))
        one = FAMILIES["provisioner_watch_restarts_total"]
        restarts = CounterMetricFamily(one.name, one.meaning, labels=one.labels)
        for resource, times in state.restarts.items():
            restarts.add_metric([resource], times)
        yield restarts
        yield _gauge("provisioner_sandboxes", self._service.statuses() or {})


def _gauge(name: str, values: dict[str, int] | float) -> GaugeMetricFamily:
    one = FAMILIES[name]
    family = GaugeMetricFamily(name, one.meaning, labels=one.labels)
    if isinstance(values, dict):
        for label, value in values.items():
            family.add_metric([label], value)
    else:
        family.add_metric([], values)
    return family


class _ReadyTimes:
    """Measures from the create until the view has seen the Pod Ready; only what this process has made."""

    def __init__(self, cluster: Cluster, observe: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._observe = observe
        # By uid, oldest first: when its create began, loop time.
        self._awaited: dict[str, float] = {}

    def on_made(self, pod: KubeObject, began: float) -> None:
        """Wait for a Pod that was made just now, by a create that began at `began` (loop time)."""
        self._awaited[pod["metadata"]["uid"]] = began
        if len(self._awaited) > _MOST_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        # The view may have seen it Ready before the create returned.
        self.on_exchange(None, self._cluster.known(kube.sandbox_id_of(pod) or "")[0])

    def on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Take in a change of the view."""
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._awaited.pop(old["metadata"]["uid"], None)
        if new is None or new["metadata"]["uid"] not in self._awaited or new["kind"] != "Pod":
            return
        if readiness_of(new)[0]:
            self._observe(asyncio.get_running_loop().time() - self._awaited.pop(new["metadata"]["uid"]))
