"""Merge patches: RFC 7386, and Kubernetes' strategic one, whose lists are matched by the schema's keys. Pure."""

from devcluster.fields import element_of
from devcluster.objects import Json, JsonValue, clone
from devcluster.schema import Type

_UNTYPED = Type("untyped")


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """Give the target with the patch merged into it; null removes (`annotate`)."""
    if not isinstance(patch, dict):
        return clone(patch)
    result = clone(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def strategic_merge_patch(typed: Type, target: JsonValue, patch: JsonValue) -> JsonValue:
    """Give the target with the patch merged into it; keyed lists by element, `$patch: delete` removes."""
    if isinstance(patch, dict):
        return _merge_fields(typed, target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list) and typed.keys and isinstance(target, list) and all(type(i) is dict for i in patch):
        return _merge_elements(typed, target, patch)
    return clone(patch)


def _merge_fields(typed: Type, target: Json, patch: Json) -> Json:
    if patch.get("$patch") == "replace":
        return {name: clone(value) for name, value in patch.items() if name != "$patch"}
    result: Json = clone(target)
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            result[name] = strategic_merge_patch(typed.child(name) or _UNTYPED, target.get(name), value)
    return result


def _merge_elements(typed: Type, target: list[JsonValue], patch: list[JsonValue]) -> list[JsonValue]:
    element = typed.element or _UNTYPED
    result = {element_of(typed, value): clone(value) for value in target}
    for value in patch:
        key = element_of(typed, value)
        if value.get("$patch") == "delete":
            result.pop(key, None)
        else:
            result[key] = strategic_merge_patch(element, result.get(key), value)
    return list(result.values())
