"""Reads the files of a template, and refuses fields that only the cluster may set.

The messages name file, field and line, and quote no values, which may be secrets.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from sandboxes.errors import StartupError
from sandboxes.spec import yaml_documents
from sandboxes.spec.yaml_scalars import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sandboxes.objects import KubeObject

_KIND = re.compile(r"[A-Za-z]{1,63}")
_MOST_SHOWN = 200

# Fields of `metadata` that an exported object has. With a uid or a resourceVersion, the API server applies it to that
# one object only (record: apply-exported-gone, apply-exported-again); it refuses managedFields
# (apply-exported-managed-fields); an object whose owner is gone is deleted by the garbage collector.
_EXPORTED = (
    "uid",
    "resourceVersion",
    "managedFields",
    "ownerReferences",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
# Others, which it ignores (record: apply-exported-gone-no-uid); `kubectl create --dry-run` prints one of them.
_IGNORED = ("creationTimestamp", "generation", "selfLink")


def read_file(path: Path) -> list[yaml_documents.Document]:
    """Read the documents of a file as kubectl does, without the empty ones; raises StartupError."""
    try:
        return yaml_documents.read_documents(path.read_bytes())
    except OSError as error:
        raise StartupError(f"The template {path} can't be read: {error.strerror}.") from error
    except UnreadableError as error:
        raise StartupError(f"The template {path} can't be read: {error}.") from error


def read_one(path: Path, kind: str) -> yaml_documents.Document:
    """Read a file with exactly one object, a Pod or a Service; raises StartupError."""
    documents = read_file(path)
    values = [document.value for document in documents]
    if len(values) != 1:
        raise StartupError(f"The template {path} must hold exactly one {kind}, and holds {len(values)} documents.")
    value = values[0]
    if not isinstance(value, dict) or value.get("kind") != kind or value.get("apiVersion", "v1") != "v1":
        raise StartupError(f"The template {path} must hold exactly one {kind} (v1), and holds {_name_of(value, kind)}.")
    return documents[0]


def _name_of(value: yaml_documents.Json, wanted: str) -> str:
    if not isinstance(value, dict):
        return "a list" if isinstance(value, list) else "a single value"
    kind = value.get("kind")
    if kind == wanted:
        return f"a {kind} of another apiVersion"
    return f"an object of kind {kind}" if isinstance(kind, str) and _KIND.fullmatch(kind) else "another object"


def checked(path: Path, document: yaml_documents.Document, shape: type[BaseModel]) -> KubeObject:
    """Return the object without null fields and those that the API server ignores; raises StartupError."""
    loaded = _without_nulls(document.value)
    try:
        shape.model_validate(loaded)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = shown(".".join(str(part) for part in first["loc"]))
        line = at(document, first["loc"])
        raise StartupError(f"The template {path} is wrong at {where}: {first['msg']}{line}.") from None
    assert isinstance(loaded, dict)  # noqa: S101 - by its shape
    metadata = loaded.get("metadata", {})
    exported: list[tuple[str, ...]] = [("metadata", field) for field in _EXPORTED if field in metadata]
    if not _is_empty(loaded.pop("status", None)):
        exported.append(("status",))
    if exported:
        fields = ", ".join(".".join(where) + at(document, where) for where in exported)
        raise StartupError(f"The template {path} is an object exported from a cluster: remove the field {fields}.")
    for field in _IGNORED:
        metadata.pop(field, None)
    return loaded


def at(document: yaml_documents.Document, where: yaml_documents.Where) -> str:
    """Return the line of a field for a message, such as " (line 3)"; empty if it is unknown."""
    line = document.line_of(where)
    return "" if line is None else f" (line {line})"


def shown(text: str | None) -> str:
    """Return a text of the file for a message: on one line and not too long."""
    text = text or ""
    return text if text.isprintable() and len(text) <= _MOST_SHOWN else json.dumps(text[:_MOST_SHOWN])


def _is_empty(value: object) -> bool:
    """Whether there is nothing but empty collections, as in the `status` that `kubectl create --dry-run` prints."""
    values: Iterable[object] = value.values() if isinstance(value, dict) else ()
    return value in (None, [], {}) or (isinstance(value, dict) and all(map(_is_empty, values)))


def _without_nulls(value: object) -> object:
    """Return the value without null fields, which Kubernetes treats as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
