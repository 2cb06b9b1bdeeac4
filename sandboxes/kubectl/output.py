"""What kubectl printed: the objects in it, or that it is none of what was asked for.

An exit code of 0 alone is no proof: a kubectl that prints nothing has said neither that nothing is there, nor that
anything is deleted. Nor is a name on stdout: a dry run, and a question that nobody answers, print names, too. So each
kind of call has its own check here.
"""

from __future__ import annotations

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

# Bytes of JSON from which on parsing at once would hold up all other requests: 1 MB takes some 10 ms.
LONG = 1_000_000


def loads(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return what JSON says; equal strings are one (of 63 bytes at most, and of the 16,384 last ones at most).

    So a Pod is 10 KB in memory, and not 20 (tests/unit/test_output_json.py). Raises ValueError.
    """
    return from_json(text, cache_strings="all")


def without_managed_fields(obj: KubeObject) -> KubeObject:
    """Return the object without what only the API server needs, which is half of it.

    kubectl leaves that out of what it prints with `-o json`, and raw answers have it.
    """
    obj["metadata"].pop("managedFields", None)
    return obj


def objects_named(stdout: bytes, wanted: Sequence[KubeObject]) -> list[KubeObject]:
    """Return the objects of an answer about named objects: one object, or a List of several (kubectl.md 3).

    In the order of `wanted`. Raises ClusterUnavailable unless these are exactly the objects named.
    """
    return _exactly(wanted, _objects(stdout, loads, _one_or_several), stdout)


def objects_stored(stdout: bytes, sent: Sequence[KubeObject]) -> list[KubeObject]:
    """Return the objects that an apply has stored, in the order in which they were sent.

    Raises ClusterUnavailable unless they are those that were sent, each as the API server stored it: a dry run's
    objects have no resourceVersion (record: kuberc-apply-dry-run). Of an object that was there before, a dry run
    prints that of the stored one: see check_changed.
    """
    stored = objects_named(stdout, sent)
    if not all(_is_stored(obj, one) for obj, one in zip(stored, sent, strict=True)):
        raise unreadable("objects that the API server has stored", stdout)
    return stored


def objects_created(stdout: bytes, sent: Sequence[KubeObject]) -> list[KubeObject]:
    """Do what `objects_stored` does for a create, which prints one document after another (record: create-list)."""
    created = _exactly(sent, _objects(stdout, _documents, _each), stdout)
    if not all(_is_stored(obj, one) for obj, one in zip(created, sent, strict=True)):
        raise unreadable("objects that the API server has stored", stdout)
    return created


def check_changed(stored: Sequence[KubeObject], before: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable if one of the objects is still the version that was read `before`.

    What an apply changes, it stores under a new resourceVersion; a dry run prints the old one.
    """
    versions = {obj["metadata"]["uid"]: obj["metadata"].get("resourceVersion") for obj in before}
    for obj in stored:
        metadata = obj["metadata"]
        if versions.get(metadata["uid"]) == metadata["resourceVersion"]:
            raise unreadable("a new version of an object", json.dumps(obj).encode())


def check_deleted(stdout: bytes, references: Sequence[KubeObject]) -> None:
    """Raise ClusterUnavailable unless this is a line `resource/NAME` for each of the objects, and no other line.

    So prints `-o name` what it has deleted (record: delete-nowait); before a question it prints such lines, too
    (record: kuberc-delete-interactive).
    """
    expected = {_line(one) for one in references}
    if set(_lines(stdout)) != expected:
        raise unreadable("the names of what it deleted", stdout)


def check_deleted_exactly(stdout: bytes, obj: KubeObject) -> None:
    """Raise ClusterUnavailable unless this is the API server's answer to a delete: this very object, or its success.

    That is a Status (record: delete-precondition-right for the object).
    """
    try:
        answer: Any = json.loads(stdout)
        is_answer = (
            answer["status"] == "Success"
            if answer["kind"] == "Status"
            else (answer["kind"], answer["metadata"]["name"], answer["metadata"]["uid"])
            == (obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"])
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        is_answer = False
    if not is_answer:
        raise unreadable("the API server's answer to a delete", stdout)


def check_ready(stdout: bytes) -> None:
    """Raise ClusterUnavailable unless this is how the API server says that it is ready (record: readyz)."""
    if stdout.strip() != b"ok":
        raise unreadable("that the API server is ready", stdout)


def has_line(stdout: bytes, line: str) -> bool:
    """Return whether kubectl printed this one line, or nothing; raises ClusterUnavailable if it is anything else."""
    lines = _lines(stdout)
    if lines not in ([], [line]):
        raise unreadable(repr(line), stdout)
    return bool(lines)


def _lines(stdout: bytes) -> list[str]:
    return [line for line in stdout.decode(errors="replace").splitlines() if line.strip()]


def _line(reference: KubeObject) -> str:
    """Return what `-o name` prints of an object, such as `networkpolicy.networking.k8s.io/NAME`."""
    group = reference["apiVersion"].rpartition("/")[0]
    resource = ".".join(filter(None, (reference["kind"].lower(), group)))
    return f"{resource}/{reference['metadata']['name']}"


def _objects(
    stdout: bytes, loads: Callable[[bytes], Any], parts: Callable[[Any], list[KubeObject]]
) -> list[KubeObject]:
    """Return the parts of what is printed; raises ClusterUnavailable if they are no Kubernetes objects."""
    try:
        objects = parts(loads(stdout))
        for obj in objects:
            kube.reference(obj)  # has what every object has
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
    """Return the JSON documents that stand one after another; raises ValueError if anything else does."""
    text = stdout.decode().strip()
    decoder = json.JSONDecoder()
    documents, position = [], 0
    while position < len(text):
        document, end = decoder.raw_decode(text, position)
        documents.append(document)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return documents


def _exactly(wanted: Sequence[KubeObject], found: Sequence[KubeObject], stdout: bytes) -> list[KubeObject]:
    """Return what was found in the order of `wanted`; raises ClusterUnavailable if it is more, less or other."""
    by_identity = {kube.identity_of(obj): obj for obj in found}
    identities = [kube.identity_of(one) for one in wanted]
    if len(found) != len(wanted) or by_identity.keys() != set(identities):
        raise unreadable("the objects that it was asked for", stdout)
    return [by_identity[identity] for identity in identities]


def _is_stored(obj: KubeObject, sent: KubeObject) -> bool:
    """Return whether this is what the API server stored, and the very object, if one was named by its uid."""
    uid, version = (obj["metadata"].get(key) for key in ("uid", "resourceVersion"))
    return bool(uid and version) and sent["metadata"].get("uid", uid) == uid


def unreadable(expected: str, stdout: bytes) -> ClusterUnavailable:
    """Return the error for what is something else than was expected; its detail shows the beginning."""
    detail = f"kubectl printed something else than {expected}: {shown(stdout.decode(errors='replace'))!r}"
    return ClusterUnavailable("The provisioner can't read what kubectl answers", detail=detail)


def shown(text: str) -> str:
    """Return as much of what kubectl printed as the log shows, without what may be a secret.

    What is secret is hidden before the text is cut: nobody would know the half of it again.
    """
    return without_values(masked(text)[:SHOWN_IN_DETAIL])
