"""Whether a delete was done, by what kubectl printed: an exit code of 0 alone is no proof. Pure.

A kubectl that prints nothing, or something else, has not said that anything is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxes.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.kube import KubeObject

_SHOWN_IN_DETAIL = 4000


def check_deleted(stdout: bytes, references: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable unless this names all of the objects, as `-o name` does (record: delete-nowait)."""
    names = {line.rpartition("/")[2] for line in stdout.decode(errors="replace").splitlines()}
    if not all(one["metadata"]["name"] in names for one in references):
        raise _unreadable("the names of what it deleted", stdout)


def check_answered(stdout: bytes) -> None:
    """Raise ClusterUnavailable unless this is what the API server answers to a delete: the object, or a Status."""
    try:
        is_answer = isinstance(json.loads(stdout)["kind"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_answer = False
    if not is_answer:
        raise _unreadable("the API server's answer", stdout)


def _unreadable(expected: str, stdout: bytes) -> ClusterUnavailable:
    detail = f"kubectl printed something else than {expected}: {stdout[:_SHOWN_IN_DETAIL]!r}"
    return ClusterUnavailable("The provisioner can't read what kubectl answers", detail=detail)
