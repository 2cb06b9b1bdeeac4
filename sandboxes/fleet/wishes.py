"""Reads what a create says about clusters, and refuses what no cluster of the file is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.errors import InvalidField, Unprocessable
from sandboxes.fleet.protocol import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.clusters_file import ClusterEntry
    from sandboxes.models.requests import CreateRequest


def wanted_of(request: CreateRequest, entries: Mapping[str, ClusterEntry]) -> Wanted:
    """Return what the request says; `entries`: of the file, by name. Raises Unprocessable if none is like that."""
    wanted = Wanted(request.cluster, request.cluster_labels or {}, request.on_cluster_loss == "recreate")
    if wanted.cluster is not None and wanted.cluster not in entries:
        sentence = f"There is no cluster of this name; there are: {', '.join(entries)}"
        raise Unprocessable([_problem(sentence, wanted.cluster, "cluster")])
    if wanted.labels and not any(wanted.labels.items() <= entry.labels.items() for entry in entries.values()):
        labels = sorted({f"{key}={value}" for entry in entries.values() for key, value in entry.labels.items()})
        sentence = f"No cluster has all these labels; there are: {', '.join(labels) or 'none'}"
        raise Unprocessable([_problem(sentence, dict(wanted.labels), "cluster_labels")])
    if wanted.cluster is not None and not wanted.labels.items() <= entries[wanted.cluster].labels.items():
        sentence = f"Cluster {wanted.cluster} lacks some of these labels"
        raise Unprocessable([_problem(sentence, dict(wanted.labels), "cluster_labels")])
    return wanted


def _problem(sentence: str, value: object, name: str) -> InvalidField:
    return InvalidField(type="value_error", loc=["body", name], msg=sentence, input=value)
