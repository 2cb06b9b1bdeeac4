"""Parses kubectl's stdout, and checks that it answers the call.

Exit code 0 alone proves nothing: without output, kubectl has neither found nothing nor deleted anything. Nor does a
name on stdout: a dry run and an unanswered prompt print names, too. So each kind of call has its own check.
"""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from sandboxes import objects as kube
from sandboxes.errors import ClusterUnavailable
from sandboxes.kubectl.stderr import without_values
from sandboxes.logs import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sandboxes.objects import KubeObject

SHOWN_IN_DETAIL = 4000

# Bytes of JSON from which parsing would block the event loop for too long: 1 MB takes about 10 ms.
LONG = 1_000_000


def loads(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON, interning strings of at most 63 bytes in a cache of 16,384. Raises ValueError.

    Interning reduces a Pod from 20 to 10 KB of memory (tests/unit/test_output_json.py). JSON has no reference cycles,
    so garbage collection waits: it would visit the new objects again and again, for more than half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return from_json(text, cache_strings="all")
    finally:
        # Also right if several threads parse at once: the one that found it enabled ends that for all.
        if was_enabled:
            gc.enable()


def without_managed_fields(obj: KubeObject) -> KubeObject:
    """Remove `managedFields`, half of an object, in place; return the object.

    `kubectl -o json` omits it, raw responses contain it.
    """
    obj["metadata"].pop("managedFields", None)
    return obj


def objects_named(stdout: bytes, wanted: Sequence[KubeObject]) -> list[KubeObject]:
    """Parse the output for named objects: one object, or a List of several (kubectl.md 3).

    Returns them in the order of `wanted`. Raises ClusterUnavailable unless they are exactly the wanted ones.
    """
    return _exactly(wanted, _objects(stdout, loads, _one_or_several), stdout)


def objects_stored(stdout: bytes, sent: Sequence[KubeObject]) -> list[KubeObject]:
    """Parse the output of an apply; return the stored objects in the order of `sent`.

    Raises ClusterUnavailable unless they are the sent ones and were stored: in a dry run, new objects have no
    resourceVersion (record: kuberc-apply-dry-run). Existing objects have their old one; see check_changed.
    """
    stored = objects_named(stdout, sent)
    if not all(_is_stored(obj, one) for obj, one in zip(stored, sent, strict=True)):
        raise unreadable("objects that the API server has stored", stdout)
    return stored


def objects_created(stdout: bytes, sent: Sequence[KubeObject]) -> list[KubeObject]:
    """Parse the output of a create, a sequence of JSON documents (record: create-list); see objects_stored."""
    created = objects_tried(stdout, sent)
    if not all(_is_stored(obj, one) for obj, one in zip(created, sent, strict=True)):
        raise unreadable("objects that the API server has stored", stdout)
    return created


def objects_tried(stdout: bytes, sent: Sequence[KubeObject]) -> list[KubeObject]:
    """Parse the output of a create that may be a dry run, which stores nothing; see objects_created."""
    return _exactly(sent, _objects(stdout, _documents, _each), stdout)


def check_changed(stored: Sequence[KubeObject], before: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable if one of the objects still has the resourceVersion that it had `before`.

    An apply that changes an object gives it a new resourceVersion; a dry run prints the old one.
    """
    versions = {obj["metadata"]["uid"]: obj["metadata"].get("resourceVersion") for obj in before}
    for obj in stored:
        metadata = obj["metadata"]
        if versions.get(metadata["uid"]) == metadata["resourceVersion"]:
            raise unreadable("a new version of an object", json.dumps(obj).encode())


def check_deleted(stdout: bytes, references: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable unless stdout is one line `resource/NAME` for each of the objects.

    `delete -o name` prints the deleted objects so (record: delete-nowait). A prompt adds other lines (record:
    kuberc-delete-interactive).
    """
    expected = {_line(one) for one in references}
    if set(_lines(stdout)) != expected:
        raise unreadable("the names of the deleted objects", stdout)


def check_deleted_exactly(stdout: bytes, obj: KubeObject) -> None:
    """Raise ClusterUnavailable unless this is a response to the delete of `obj`.

    That is the object itself (record: delete-precondition-right), or a Status of success.
    """
    try:
        answer: Any = json.loads(stdout)
        is_answer = (
            answer["status"] == "Success"
            if answer["kind"] == "Status"
            else (answer["kind"], answer["metadata"]["name"], answer["metadata"]["uid"])
            == (obj["kind"], obj["metadata"]["name"], obj["metadata"].get("uid", answer["metadata"]["uid"]))
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        is_answer = False
    if not is_answer:
        raise unreadable("the API server's answer to a delete", stdout)


def check_ready(stdout: bytes) -> None:
    """Raise ClusterUnavailable unless the API server reports ready (record: readyz)."""
    if stdout.strip() != b"ok":
        raise unreadable("that the API server is ready", stdout)


def has_line(stdout: bytes, line: str) -> bool:
    """Return True if stdout is this line, False if it is empty. Raises ClusterUnavailable for anything else."""
    lines = _lines(stdout)
    if lines not in ([], [line]):
        raise unreadable(repr(line), stdout)
    return bool(lines)


def _lines(stdout: bytes) -> list[str]:
    return [line for line in stdout.decode(errors="replace").splitlines() if line.strip()]


def _line(reference: KubeObject) -> str:
    """Return the line of `-o name` for an object, such as `networkpolicy.networking.k8s.io/NAME`."""
    group = reference["apiVersion"].rpartition("/")[0]
    resource = ".".join(filter(None, (reference["kind"].lower(), group)))
    return f"{resource}/{reference['metadata']['name']}"


def _objects(
    stdout: bytes, loads: Callable[[bytes], Any], parts: Callable[[Any], list[KubeObject]]
) -> list[KubeObject]:
    """Parse stdout into objects. Raises ClusterUnavailable if they are not Kubernetes objects."""
    try:
        objects = parts(loads(stdout))
        for obj in objects:
            kube.reference(obj)  # raises if a field that every object has is missing
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise unreadable(f"Kubernetes objects ({error})", stdout) from error
    return objects


def _items(document: Any) -> list[KubeObject]:  # noqa: ANN401 - JSON
    if not document["kind"].endswith("List"):
        raise TypeError("no List")
    items: list[KubeObject] = document["items"]
    return items


def _one_or_several(document: Any) -> list[KubeObject]:  # noqa: ANN401 - JSON
    return _items(document) if document["kind"].endswith("List") else [document]


def _each(documents: Any) -> list[KubeObject]:  # noqa: ANN401 - JSON
    return [obj for document in documents for obj in _one_or_several(document)]


def _documents(stdout: bytes) -> list[Any]:
    """Parse a sequence of JSON documents. Raises ValueError."""
    text = stdout.decode().strip()
    decoder = json.JSONDecoder()
    documents, position = [], 0
    while position < len(text):
        document, end = decoder.raw_decode(text, position)
        documents.append(document)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return documents


def _exactly(wanted: Sequence[KubeObject], found: Sequence[KubeObject], stdout: bytes) -> list[KubeObject]:
    """Return `found` in the order of `wanted`. Raises ClusterUnavailable unless both have the same objects."""
    by_identity = {kube.identity_of(obj): obj for obj in found}
    identities = [kube.identity_of(one) for one in wanted]
    if len(found) != len(wanted) or by_identity.keys() != set(identities):
        raise unreadable("the objects that it was asked for", stdout)
    return [by_identity[identity] for identity in identities]


def _is_stored(obj: KubeObject, sent: KubeObject) -> bool:
    """Whether the API server has stored `obj`, and it has the uid of `sent`, if that has one."""
    uid, version = (obj["metadata"].get(key) for key in ("uid", "resourceVersion"))
    return bool(uid and version) and sent["metadata"].get("uid", uid) == uid


def unreadable(expected: str, stdout: bytes) -> ClusterUnavailable:
    """Return the error for unexpected output; its detail contains the beginning of the output."""
    detail = f"kubectl did not print {expected}: {shown(stdout.decode(errors='replace'))!r}"
    return ClusterUnavailable("The provisioner can't read kubectl's output", detail=detail)


def shown(text: str) -> str:
    """Return the part of kubectl's output that is logged, with secrets masked.

    Masks before truncating, since half a secret would not be recognized.
    """
    return without_values(masked(text)[:SHOWN_IN_DETAIL])
