"""Turns objects of one cluster into what the directory reads of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sandboxes import objects as kube
from sandboxes.fleet.markers import REPLACES_ANNOTATION
from sandboxes.fleet.protocol import ForeignMarker, Pod
from sandboxes.service.attempt import is_returned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.objects import KubeObject

T = TypeVar("T")


def pod_on(cluster: str, pod: KubeObject) -> Pod:
    """Return a Pod of this cluster as the directory reads it."""
    marks = kube.get_annotations(pod)
    # Others were made by hand, or before there were several clusters, and may be in use.
    is_ours = marks.get(kube.PLACED_ANNOTATION) == cluster
    return Pod(pod["metadata"]["uid"], marks.get(REPLACES_ANNOTATION, ""), is_ours and not is_returned(pod))


def pods_on(cluster: str, pods: Iterable[KubeObject]) -> dict[str, Pod]:
    """Return the Pods of sandboxes of this cluster by id, without terminating ones."""
    return {
        sandbox_id: pod_on(cluster, pod)
        for pod in pods
        if (sandbox_id := kube.sandbox_id_of(pod)) is not None and not kube.is_terminating(pod)
    }


def believed(parsed: T | str) -> T:
    """Return what was parsed; raises ForeignMarker with the sentence that says why it can't be believed."""
    if isinstance(parsed, str):
        raise ForeignMarker(parsed)
    return parsed
