"""Sets of field paths: the paths of an object, and the difference of two objects. The basis of field ownership.

A path is a tuple of elements as FieldsV1 writes them: `f:name` for a field, `k:{"name":"sandbox"}` for an element of a
list that is a map, `v:"x"` for an element of a set. Knows no managers.
"""

import json
from collections.abc import Iterable, Iterator

from devcluster.objects import Json, JsonValue
from devcluster.schema import Type

Path = tuple[str, ...]
PathSet = frozenset[Path]

_SCALAR = Type("scalar")
_SELF = "."
_ABSENT = object()
"""Marks a missing field, which differs from null (`lastProbeTime`, in `watch-pods.ndjson`)."""


def field(name: str) -> str:
    """Return the path element of a field."""
    return f"f:{name}"


def element_of(typed: Type, value: JsonValue) -> str:
    """Return the path element of a list element. The schema check has refused elements without their keys."""
    if typed.keys:
        return "k:" + json.dumps(typed.key_of(value), sort_keys=True, separators=(",", ":"))
    return "v:" + json.dumps(value, separators=(",", ":"))


def children(typed: Type, value: JsonValue) -> Iterator[tuple[str, Type, JsonValue]]:
    """Yield path element, type and value of each direct child."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield field(name), typed.child(name) or _SCALAR, inner
    elif isinstance(value, list):
        for inner in value:
            yield element_of(typed, inner), typed.element or _SCALAR, inner


def paths_of(typed: Type, value: JsonValue) -> PathSet:
    """Return the paths that an applied object owns: its leaves, and each list element itself."""
    found: set[Path] = set()
    _collect(typed, value, (), found)
    return frozenset(found)


def _collect(typed: Type, value: JsonValue, path: Path, found: set[Path]) -> None:
    if typed.is_leaf or not isinstance(value, (dict, list)) or not value:
        found.add(path)
        return
    for element, inner_type, inner in children(typed, value):
        inner_path = (*path, element)
        if not element.startswith("f:"):
            found.add(inner_path)
        if not element.startswith("v:"):
            _collect(inner_type, inner, inner_path, found)


def difference(typed: Type, old: JsonValue, new: JsonValue) -> tuple[PathSet, PathSet]:
    """Return the paths that were added or changed, and those that were removed, both including containers."""
    changed: set[Path] = set()
    removed: set[Path] = set()
    _compare(typed, old, new, (), (changed, removed))
    return frozenset(changed), frozenset(removed)


def _compare(typed: Type, old: JsonValue, new: JsonValue, path: Path, out: tuple[set[Path], set[Path]]) -> None:
    if old is new or old == new:
        return
    changed, removed = out
    if old is _ABSENT or new is _ABSENT:
        (changed if old is _ABSENT else removed).add(path)
    if typed.is_leaf or not isinstance(new if old is _ABSENT else old, (dict, list)):
        if old is not _ABSENT and new is not _ABSENT:
            changed.add(path)
        return
    before = {element: (inner_type, inner) for element, inner_type, inner in children(typed, old)}
    after = {element: (inner_type, inner) for element, inner_type, inner in children(typed, new)}
    for element in before.keys() | after.keys():
        inner_type = (after.get(element) or before[element])[0]
        inner_old, inner_new = (side[element][1] if element in side else _ABSENT for side in (before, after))
        _compare(inner_type, inner_old, inner_new, (*path, element), out)


def to_fields_v1(paths: Iterable[Path]) -> Json:
    """Encode a set as FieldsV1, keys sorted: `{"f:metadata":{"f:labels":{"f:app":{}}}}`."""
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for element in path[:-1]:
            if element not in node:
                node[element] = {}
            elif not node[element]:
                node[element][_SELF] = {}
            node = node[element]
        node[path[-1]] = {}
    return tree


def from_fields_v1(tree: Json) -> PathSet:
    """Decode a set from FieldsV1."""
    found: set[Path] = set()
    _read(tree, (), found)
    return frozenset(found)


def _read(tree: Json, path: Path, found: set[Path]) -> None:
    for element, inner in tree.items():
        if element == _SELF:
            found.add(path)
        elif inner:
            _read(inner, (*path, element), found)
        else:
            found.add((*path, element))


def shown(path: Path) -> str:
    """Format a path as conflicts and schema errors do: `.spec.containers[name="sandbox"].image` (`apply-conflict`)."""
    return "".join(_shown_element(element) for element in path)


def _shown_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    pairs = (f"{name}={json.dumps(value)}" for name, value in json.loads(text).items())
    return f"[{','.join(pairs)}]"
