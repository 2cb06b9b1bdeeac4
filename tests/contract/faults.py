"""Recorded rejections as responses of devcluster. Outages are in `cluster.faults`."""

from __future__ import annotations

import re

import kmock

from devcluster import Cluster, once
from tests.record import case

_CODES = {"Forbidden": 403, "NotFound": 404, "InternalError": 500, "Conflict": 409, "ServiceUnavailable": 503}
_STDERR = re.compile(r"Error from server \((?P<reason>\w+)\): (?P<message>.*)")


def recorded_refusal(name: str, line: int = 0) -> kmock.KubernetesError:
    """Return the server's response behind one stderr line of the recorded case `name`."""
    rejection = _STDERR.match(case(name).stderr.splitlines()[line])
    assert rejection is not None, f"{name} has no rejection by the server on this line"
    return kmock.KubernetesError(_CODES[rejection["reason"]], rejection["reason"], rejection["message"], {})


def refuse_next(cluster: Cluster, method: str, resource: str, name: str, times: int = 1, line: int = 0) -> None:
    """Reject the next `times` requests of `method` to `resource` as in `line` of the recorded case `name`."""
    cluster.kmock[method, kmock.resource(f"v1/{resource}")] << once(*[recorded_refusal(name, line)] * times)


def makes_an_object(cluster: Cluster, request: kmock.Request) -> bool:
    """Whether the apply makes a Pod or a Service: a quota refuses no change of one.

    For the criteria of a rule. A payload of StopIteration would end the rule at the first request that it lets pass.
    """
    kind = "Service" if str(request.name).endswith("-svc") else "Pod"
    return cluster.get(kind, str(request.namespace), str(request.name)) is None
