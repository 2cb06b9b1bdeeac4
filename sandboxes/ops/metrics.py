"""Prometheus metrics of this process, in one registry per application. Never touches the cluster.

Other modules don't know this one: it connects to their signals, or reads their state at each scrape. No label value is
an id or text from a caller, so the number of series is bounded.
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
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.sandboxes import SandboxService

# Seconds. A read from the live view takes less than 1 ms; a create may take 21 s (deadlines.py).
_REQUEST_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
_CALL_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
# The startup probe runs every second, for two minutes by default.
_READY_BUCKETS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_GROUP_BUCKETS = (1, 2, 4, 8, 16, 32, 50)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Most Pods whose time to Ready is measured at once; past it, the oldest are dropped.
_MOST_AWAITED = 10_000


@dataclass(frozen=True)
class Family:
    """The description of a metric. Histograms are in seconds, except for group sizes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    # Whether it belongs to a cluster, else to the whole service.
    of_cluster: bool = True

    def all_labels(self, *, is_by_cluster: bool) -> tuple[str, ...]:
        """Return the labels, with `cluster` where there may be several."""
        return ("cluster", *self.labels) if is_by_cluster and self.of_cluster else self.labels


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "provisioner_http_request_seconds",
            "histogram",
            ("method", "route", "status"),
            "Time to answer a request. `route` is a template; `unmatched`: no route.",
            _REQUEST_BUCKETS,
            of_cluster=False,
        ),
        Family(
            "provisioner_failures_total",
            "counter",
            ("kind",),
            "Requests that failed, by class of error; `Bug`: a bug.",
            of_cluster=False,
        ),
        Family(
            "provisioner_kubectl_call_seconds",
            "histogram",
            ("verb", "outcome"),
            "Time of a kubectl call, including the wait for a free process. `outcome`: `ok` or a class of error.",
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
            "Waiting requests, by kind of work; `process`: calls that wait for a free process.",
        ),
        Family(
            "provisioner_group_size",
            "histogram",
            ("work",),
            "Requests per batched kubectl call.",
            _GROUP_BUCKETS,
        ),
        Family(
            "provisioner_view_age_seconds",
            "gauge",
            (),
            "Time since the live view was last shown to be current; `+Inf` while a watch has failed.",
        ),
        Family("provisioner_view_fresh", "gauge", (), "1 if reads are answered from the live view, else 0."),
        Family("provisioner_watch_restarts_total", "counter", ("resource",), "Watches that ended early."),
        Family(
            "provisioner_sandboxes",
            "gauge",
            ("status",),
            "Sandboxes in the namespace, from the live view; absent while it is not fresh.",
        ),
        Family(
            "provisioner_create_to_ready_seconds",
            "histogram",
            (),
            "Time from the request that created a sandbox until its Pod was Ready. Needs the live view.",
            _READY_BUCKETS,
        ),
        Family(
            "provisioner_reaped_total",
            "counter",
            ("reason",),
            "Deletions by the reaper: `expired`, `idle`, `ended` and `half` sandboxes, and single `leftover` objects.",
        ),
    )
}


class Metrics:
    """The metrics of one application, including those of the process (`process_…`).

    `service`: that of the only cluster. Without it there may be several: `join` adds each, and the metrics that belong
    to a cluster have the label `cluster`.
    """

    def __init__(self, service: SandboxService | None = None) -> None:
        self._is_by_cluster = service is None
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._histogram("provisioner_http_request_seconds")
        # Faster than prometheus-client's own look-up of a child, which each request would need.
        self._requests_by: dict[tuple[str, str, int], Histogram] = {}
        self._failures = self._counter("provisioner_failures_total")
        self._calls = self._histogram("provisioner_kubectl_call_seconds")
        self._groups = self._histogram("provisioner_group_size")
        self._reaped = self._counter("provisioner_reaped_total")
        self._ready_seconds = self._histogram("provisioner_create_to_ready_seconds")
        self._present = _Present(is_by_cluster=self._is_by_cluster)
        self._registry.register(self._present)
        if service is not None:
            self._connect(service, ())
            self._present.sources[""] = _Source(service)

    @property
    def registry(self) -> CollectorRegistry:
        """Where further metrics are added."""
        return self._registry

    def join(self, name: str, service: SandboxService, waiting: Callable[[], int]) -> None:
        """Include a cluster, in place of one with the same name, whose counts go on.

        `waiting`: returns the number of kubectl processes that wait on stdin.
        """
        self._present.sources[name] = _Source(service, waiting)
        self._connect(service, (name,))

    def keep(self, names: Container[str]) -> None:
        """Exclude all clusters but those with these names, and drop their counts."""
        for name in [name for name in self._present.sources if name not in names]:
            del self._present.sources[name]
            for one in (self._calls, self._groups, self._reaped, self._ready_seconds):
                one.remove_by_labels({"cluster": name})

    def _connect(self, service: SandboxService, of: tuple[str, ...]) -> None:
        """Measure what the service does. `of`: the value of the label `cluster`, if there is one."""

        def if_joined(measure: Callable[..., None]) -> Callable[..., None]:
            def measured(*args: object) -> None:
                # A service that is being ended still works, and must not bring back the counts that were dropped.
                if not of or of[0] in self._present.sources:
                    measure(*args)

            return measured

        cluster = service.cluster
        cluster.kubectl.called.connect(
            if_joined(lambda verb, outcome, seconds: self._calls.labels(*of, verb, outcome).observe(seconds))
        )
        if cluster.batched is not None:
            cluster.batched.began.connect(
                if_joined(lambda work, size: self._groups.labels(*of, work).observe(size)),
            )
        service.reaper.reaped.connect(if_joined(lambda reason: self._reaped.labels(*of, reason).inc()))
        if cluster.has_informer:
            ready_times = _ReadyTimes(cluster, if_joined(self._observe_ready(of)))
            cluster.exchanged.connect(ready_times.on_exchange)
            service.made.connect(ready_times.on_made)

    def _observe_ready(self, of: tuple[str, ...]) -> Callable[[float], None]:
        if not of:
            return self._ready_seconds.observe
        self._ready_seconds.labels(*of)  # shown as 0 from the start, as without the label
        return lambda seconds: self._ready_seconds.labels(*of).observe(seconds)

    def read_waiting(self, waiting: Callable[[], int]) -> None:
        """Call `waiting` at each scrape for the number of the only cluster's kubectl processes that wait on stdin."""
        self._present.sources[""].waiting = waiting

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record a request and its duration. `route`: the template, never the path."""
        key = (method if method in _METHODS else "other", route, status)
        child = self._requests_by.get(key)
        if child is None:
            child = self._requests_by[key] = self._requests.labels(*key)
        child.observe(seconds)

    def failed(self, kind: str) -> None:
        """Count a request that failed. `kind`: the class of the error."""
        self._failures.labels(kind).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the `Accept` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _histogram(self, name: str) -> Histogram:
        one = FAMILIES[name]
        return Histogram(
            name,
            one.meaning,
            one.all_labels(is_by_cluster=self._is_by_cluster),
            buckets=one.buckets,
            registry=self._registry,
        )

    def _counter(self, name: str) -> Counter:
        one = FAMILIES[name]
        return Counter(name, one.meaning, one.all_labels(is_by_cluster=self._is_by_cluster), registry=self._registry)


@dataclass
class _Source:
    """A cluster's service, and a function that returns the number of its kubectl processes that wait on stdin."""

    service: SandboxService
    waiting: Callable[[], int] = lambda: 0


class _Present(Collector):
    """Metrics that are read at each scrape. `sources`: by the cluster's name, which is empty for the only one."""

    def __init__(self, *, is_by_cluster: bool) -> None:
        self.sources: dict[str, _Source] = {}
        self._is_by_cluster = is_by_cluster

    def describe(self) -> Iterable[Metric]:
        """Return nothing. Names in FAMILIES are unique, and the default would collect at registration, too early."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the current value of each metric."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for cluster, source in self.sources.items():
            of = [cluster] if self._is_by_cluster else []
            for name, values in _values(source):
                one = FAMILIES[name]
                if name not in families:
                    make = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
                    families[name] = make(name, one.meaning, labels=one.all_labels(is_by_cluster=self._is_by_cluster))
                for label, value in values.items():
                    families[name].add_metric([*of, label] if one.labels else of, value)
        yield from families.values()


def _values(source: _Source) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield each metric's name, and its values by its own label; by an empty text if it has none."""
    cluster = source.service.cluster
    processes = {"running": cluster.kubectl.running, "waiting": source.waiting()}
    if cluster.has_informer:
        processes["watching"] = cluster.informer_state.watching
    yield "provisioner_kubectl_processes", processes
    yield "provisioner_queue_length", cluster.queues()
    if not cluster.has_informer:
        return
    state = cluster.informer_state
    yield "provisioner_view_age_seconds", {"": state.age}
    yield "provisioner_view_fresh", {"": float(state.is_fresh)}
    yield "provisioner_watch_restarts_total", state.restarts
    yield "provisioner_sandboxes", source.service.statuses() or {}


class _ReadyTimes:
    """Measures the time from a create of this process until the view shows the Pod Ready."""

    def __init__(self, cluster: Cluster, observe: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._observe = observe
        # Start of the create, in loop time, by the Pod's uid; oldest first.
        self._awaited: dict[str, float] = {}

    def on_made(self, pod: KubeObject, began: float) -> None:
        """Start to measure a new Pod, whose create began at `began` (loop time)."""
        self._awaited[pod["metadata"]["uid"]] = began
        if len(self._awaited) > _MOST_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        # The view may have seen it Ready before the create returned.
        self.on_exchange(None, self._cluster.known(kube.sandbox_id_of(pod) or "")[0])

    def on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Handle a change of the view."""
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._awaited.pop(old["metadata"]["uid"], None)
        if new is None or new["metadata"]["uid"] not in self._awaited or new["kind"] != "Pod":
            return
        if readiness_of(new)[0]:
            self._observe(asyncio.get_running_loop().time() - self._awaited.pop(new["metadata"]["uid"]))
