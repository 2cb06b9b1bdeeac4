"""Normalizes the parts of kubectl's output that differ between clusters: uids, times, ports, addresses."""

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
REPLACEMENTS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"kube-api-access-[a-z0-9]{5}"), "kube-api-access"),
    (re.compile(r"(sandbox-[a-z0-9]+)\.[0-9a-f]{16}"), r"\1.EVENT"),
    (re.compile(r"^([EWI])\d{4} [\d:.]+ +\d+ ", re.MULTILINE), r"\1 "),
    (re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}"), r"\1:PORT"),
    (re.compile(r"\(\d{1,6}\)"), "(VERSION)"),
    (re.compile(r"Invalid value: \d{5}: provided"), "Invalid value: PORT: provided"),
    # kubectl's message about its own deadline, which it does not always print.
    (re.compile(r"^E reflector.*context deadline exceeded.*\n", re.MULTILINE), ""),
    # No node fits the Pod, or the only node is cordoned.
    (re.compile(r"1 node\(s\) (didn't match Pod's node affinity/selector|were unschedulable)"), "1 node(s) WHY"),
    # A diff of Go structures follows, whose format is not stable.
    (re.compile(r"(negative\))\n@@ .*?(?=\nError|\nThe |\Z)", re.DOTALL), r"\1\nDIFF"),
)
# The recorded kubelet's value for "no limit", some seconds after the start.
NO_LIMIT = {"limits": {"memory": "9007199254740988Ki"}}
# A volume source that only some of the recorded API servers add.
OPENSHIFT_CA = {
    "configMap": {"items": [{"key": "service-ca.crt", "path": "service-ca.crt"}], "name": "openshift-service-ca.crt"}
}
# Lists that the record has in different orders.
UNORDERED = {"resourceRules", "nonResourceRules"}


def sorted_rules(rules: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(rule, sort_keys=True) for rule in rules)


def normalize(value: Any) -> Any:
    """Replace values that differ between two clusters; the presence of each key is kept."""
    if value == NO_LIMIT:
        return {}
    if isinstance(value, dict):
        return {
            key: "*" if key in VOLATILE and item else sorted_rules(item) if key in UNORDERED else normalize(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [normalize(item) for item in value if item != OPENSHIFT_CA]
    if isinstance(value, str):
        for pattern, replacement in REPLACEMENTS:
            value = pattern.sub(replacement, value)
    return value


def parsed_stdout(result: Result) -> Any:
    try:
        return json.loads(result.stdout)
    except ValueError:
        return parse_documents(result.stdout)


def parse_documents(stdout: Any) -> Any:
    """Split the JSON documents that a create of several objects prints; return other output unchanged."""
    if not isinstance(stdout, str) or not stdout.startswith("{"):
        return stdout
    return [json.loads(text) for text in re.split(r"(?<=^\})\n(?=\{)", stdout, flags=re.MULTILINE)]
