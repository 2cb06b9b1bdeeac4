"""Merges patches into objects: structured merge by the schema, and JSON merge patch. Knows no managers."""

from collections.abc import Iterable

from devcluster.fields import Path, children, element_of
from devcluster.objects import Json, JsonValue, clone
from devcluster.schema import Type

_UNTYPED = Type("untyped")


def merged(typed: Type, live: JsonValue, applied: JsonValue) -> JsonValue:
    """Return `live` merged with `applied`: replaces leaves, joins maps, matches list elements by their keys.

    Stored elements keep their order and new ones follow, so that a repeated apply changes nothing (`apply-unchanged`).
    """
    if typed.is_leaf or type(live) is not type(applied):
        return clone(applied)
    if isinstance(applied, dict):
        return _merged_fields(typed, live, applied)
    if isinstance(applied, list):
        return _merged_elements(typed, live, applied)
    return applied


def _merged_fields(typed: Type, live: Json, applied: Json) -> Json:
    result = {name: clone(value) for name, value in live.items() if name not in applied}
    for name, value in applied.items():
        if value is not None:
            result[name] = merged(typed.child(name) or _UNTYPED, live.get(name), value)
    return result


def _merged_elements(typed: Type, live: list[JsonValue], applied: list[JsonValue]) -> list[JsonValue]:
    element = typed.element or _UNTYPED
    by_key = {element_of(typed, value): value for value in applied}
    result = []
    for value in live:
        key = element_of(typed, value)
        result.append(merged(element, value, by_key.pop(key)) if key in by_key else clone(value))
    return [*result, *(clone(value) for value in by_key.values())]


def without(typed: Type, obj: Json, paths: Iterable[Path]) -> None:
    """Remove the paths from `obj` in place, and containers that become empty.

    List elements are removed before their contents, while their keys still identify them.
    """
    for path in sorted(paths, key=len):
        _remove(typed, obj, path)


def _remove(typed: Type, value: JsonValue, path: Path) -> None:
    for element, inner_type, inner in tuple(children(typed, value)):
        if element != path[0]:
            continue
        if len(path) > 1:
            if not isinstance(inner, (dict, list)) or inner_type.is_leaf:
                return
            _remove(inner_type, inner, path[1:])
            if inner:
                return
        if isinstance(value, dict):
            del value[element[2:]]
        else:
            value.remove(inner)
        return


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """Return the target with a JSON merge patch (RFC 7386) applied; null removes (`annotate`)."""
    if not isinstance(patch, dict):
        return clone(patch)
    result = clone(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
