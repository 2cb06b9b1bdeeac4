"""What kubectl printed: the objects in it, or that it is none of what was asked for.

An exit code of 0 alone is no proof: a kubectl that prints nothing has said neither that nothing is there, nor that
anything is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sandboxes import kube, wire
from sandboxes.errors import ClusterUnavailable
from sandboxes.failures import without_values
from sandboxes.logs import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sandboxes.kube import KubeObject

SHOWN_IN_DETAIL = 4000

# Bytes of JSON from which on parsing at once would hold up all other requests: 1 MB takes some 10 ms.
LONG = 1_000_000


def objects_in(stdout: bytes, loads: Callable[[bytes], object] = wire.loads) -> list[KubeObject]:
    """Return the objects of `-o json`: one object, or a List of several (kubectl.md 3).

    Raises ClusterUnavailable if it is anything else.
    """
    try:
        document: Any = loads(stdout)
        items: list[KubeObject] = document["items"] if document["kind"].endswith("List") else [document]
        for obj in items:
            kube.reference(obj)  # has what every object has
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise unreadable(f"Kubernetes objects ({error})", stdout) from error
    return items


def objects_in_long(stdout: bytes, held: Callable[[KubeObject], KubeObject]) -> list[KubeObject]:
    """Do what `objects_in` does, an object at a time: other threads get their turn in between.

    In the place of each object stands what `held` returns for it, at once: so a list takes no more than what is new.
    """
    return objects_in(stdout, lambda text: wire.loads_by_items(text, held))


def check_deleted(stdout: bytes, references: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable unless this names all of the objects, as `-o name` does (record: delete-nowait)."""
    names = {line.rpartition("/")[2] for line in stdout.decode(errors="replace").splitlines()}
    if not all(one["metadata"]["name"] in names for one in references):
        raise unreadable("the names of what it deleted", stdout)


def check_answered(stdout: bytes) -> None:
    """Raise ClusterUnavailable unless this is what the API server answers to a delete: the object, or a Status."""
    try:
        is_answer = isinstance(json.loads(stdout)["kind"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_answer = False
    if not is_answer:
        raise unreadable("the API server's answer", stdout)


def unreadable(expected: str, stdout: bytes) -> ClusterUnavailable:
    """Return the error for what is something else than was expected; its detail shows the beginning."""
    detail = f"kubectl printed something else than {expected}: {shown(stdout.decode(errors='replace'))!r}"
    return ClusterUnavailable("The provisioner can't read what kubectl answers", detail=detail)


def shown(text: str) -> str:
    """Return as much of what kubectl printed as the log shows, without what may be a secret.

    What is secret is hidden before the text is cut: nobody would know the half of it again.
    """
    return without_values(masked(text)[:SHOWN_IN_DETAIL])
