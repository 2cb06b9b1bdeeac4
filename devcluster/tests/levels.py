"""Levels what differs from one cluster to another in what kubectl prints: uids, times, ports, addresses."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.kubectl import Result

VOLATILE = {
    *("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "time", "startTime", "startedAt"),
    *("lastTransitionTime", "finishedAt", "eventTime", "firstTimestamp", "lastTimestamp", "containerID", "imageID"),
    *("podIP", "podIPs", "clusterIP", "clusterIPs", "nodePort", "reportingInstance"),
}
LEVELLED = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"kube-api-access-[a-z0-9]{5}"), "kube-api-access"),
    (re.compile(r"(sandbox-[a-z0-9]+)\.[0-9a-f]{16}"), r"\1.EVENT"),
    (re.compile(r"^([EWI])\d{4} [\d:.]+ +\d+ ", re.MULTILINE), r"\1 "),
    (re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}"), r"\1:PORT"),
    (re.compile(r"\(\d{1,6}\)"), "(VERSION)"),
    (re.compile(r"Invalid value: \d{5}: provided"), "Invalid value: PORT: provided"),
    # kubectl's own word on its own deadline, said or not as it happens.
    (re.compile(r"^E reflector.*context deadline exceeded.*\n", re.MULTILINE), ""),
    # Whether no node was right for a Pod, or the only one was cordoned.
    (re.compile(r"1 node\(s\) (didn't match Pod's node affinity/selector|were unschedulable)"), "1 node(s) WHY"),
    # After the sentence comes a diff of Go's own structures, which nothing promises.
    (re.compile(r"(negative\))\n@@ .*?(?=\nError|\nThe |\Z)", re.DOTALL), r"\1\nDIFF"),
)
# What the recorded kubelet made of "no limit", some seconds after the start.
NO_LIMIT = {"limits": {"memory": "9007199254740988Ki"}}
# What some of the recorded API servers mounted besides, and others did not.
OPENSHIFT_CA = {
    "configMap": {"items": [{"key": "service-ca.crt", "path": "service-ca.crt"}], "name": "openshift-service-ca.crt"}
}
# The record has the same rules in one order and in another.
UNORDERED = {"resourceRules", "nonResourceRules"}


def in_order(rules: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(rule, sort_keys=True) for rule in rules)


def level(value: Any) -> Any:
    """Level what differs between two clusters; what is there and what is not stays."""
    if value == NO_LIMIT:
        return {}
    if isinstance(value, dict):
        return {
            key: "*" if key in VOLATILE and item else in_order(item) if key in UNORDERED else level(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [level(item) for item in value if item != OPENSHIFT_CA]
    if isinstance(value, str):
        for pattern, replacement in LEVELLED:
            value = pattern.sub(replacement, value)
    return value


def printed(result: Result) -> Any:
    try:
        return json.loads(result.stdout)
    except ValueError:
        return documents(result.stdout)


def documents(stdout: Any) -> Any:
    """Return the JSON documents that a create of several objects prints one after another; all else as it is."""
    if not isinstance(stdout, str) or not stdout.startswith("{"):
        return stdout
    return [json.loads(text) for text in re.split(r"(?<=^\})\n(?=\{)", stdout, flags=re.MULTILINE)]
