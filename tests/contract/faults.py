"""What a test puts in the way of a request to devcluster in the record's own words. What breaks is `cluster.faults`."""

from __future__ import annotations

import re

import kmock

from devcluster import Cluster, once
from tests.record import case

_CODES = {"Forbidden": 403, "NotFound": 404, "InternalError": 500, "Conflict": 409, "ServiceUnavailable": 503}
_SAID = re.compile(r"Error from server \((?P<reason>\w+)\): (?P<message>.*)")


def recorded_refusal(name: str, line: int = 0) -> kmock.KubernetesError:
    """Return the server's answer that made kubectl say what the recorded case `name` has on one of its lines."""
    said = _SAID.match(case(name).stderr.splitlines()[line])
    assert said is not None, f"{name} has no plain refusal of the server's"
    return kmock.KubernetesError(_CODES[said["reason"]], said["reason"], said["message"], {})


def refuse_next(cluster: Cluster, method: str, resource: str, name: str, times: int = 1, line: int = 0) -> None:
    """Have the next requests of `method` to `resource` refused as in the recorded case `name`, on its `line`."""
    cluster.kmock[method, kmock.resource(f"v1/{resource}")] << once(*[recorded_refusal(name, line)] * times)
