"""Checks objects against the schema: undeclared fields, values of the wrong type. Knows no kind's rules."""

import dataclasses
import json

from devcluster.fields import Path, element_of, field, shown
from devcluster.objects import Json, JsonValue
from devcluster.schema import Type

_EXPECTED = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_NUMERIC = "numeric (int or float)"


@dataclasses.dataclass
class _Found:
    """What is wrong; `decoding` does not mind an element of a list that another one has the key of."""

    decoding: bool
    said: list[str] = dataclasses.field(default_factory=list)


def complaints(typed: Type, value: JsonValue, *, decoding: bool = False) -> list[str]:
    """Return the errors of server-side apply, in its words (`apply-unknown-field-ignored`).

    `decoding`: only those of a create and an update, which accept a key twice (`create-port-twice`).
    """
    found = _Found(decoding)
    _check(typed, value, (), found)
    return found.said


def joined(found: list[str]) -> str:
    """Format one or several errors as structured merge does."""
    if len(found) == 1:
        return found[0]
    return "\n".join(["errors:", *(f"  {complaint}" for complaint in found)])


def _check(typed: Type, value: JsonValue, path: Path, found: _Found) -> None:
    if value is None or typed.form == "untyped" or typed.scalar == "int-or-string":
        return
    wanted = _mismatch(typed, value)
    if wanted:
        found.said.append(
            f"{shown(path)}: expected {wanted}, got &value.valueUnstructured{{Value:{json.dumps(value)}}}"
        )
    elif isinstance(value, dict):
        _check_fields(typed, value, path, found)
    elif isinstance(value, list) and typed.element is not None:
        _check_elements(typed, typed.element, value, path, found)


def _mismatch(typed: Type, value: JsonValue) -> str:
    """Return the name of the expected type, or an empty string if the value has it."""
    if typed.form in ("struct", "map"):
        return "" if isinstance(value, dict) else "map"
    if typed.form == "list":
        return "" if isinstance(value, list) else "list"
    if typed.definition.endswith(".Quantity") and isinstance(value, (int, float)):
        return ""
    fits = isinstance(value, _EXPECTED[typed.scalar]) and (
        typed.scalar in ("string", "boolean") or not isinstance(value, bool)
    )
    if fits:
        return ""
    return _NUMERIC if typed.scalar in ("integer", "number") else typed.scalar


def _check_fields(typed: Type, value: Json, path: Path, found: _Found) -> None:
    for name, inner in value.items():
        declared = typed.child(name)
        inner_path = (*path, field(name))
        if declared is None:
            found.said.append(f"{shown(inner_path)}: field not declared in schema")
        else:
            _check(declared, inner, inner_path, found)


def _check_elements(typed: Type, element: Type, value: list[JsonValue], path: Path, found: _Found) -> None:
    seen: set[str] = set()
    for index, inner in enumerate(value):
        if typed.keys and (not isinstance(inner, dict) or typed.key_of(inner) is None):
            missing = next((key for key in typed.keys if not isinstance(inner, dict) or key not in inner), "")
            found.said.append(
                f"{shown(path)}: element {index}: associative list with keys has an element that omits key field "
                f'"{missing}"'
            )
            continue
        if typed.atomic:
            _check(element, inner, (*path, f"v:{json.dumps(index)}"), found)
            continue
        key = element_of(typed, inner)
        if key in seen and not found.decoding:
            found.said.append(f"{shown(path)}: duplicate entries for key {shown((key,))}")
        seen.add(key)
        _check(element, inner, (*path, key), found)


def prune(typed: Type, value: JsonValue, path: str = "") -> list[str]:
    """Drop undeclared fields in place, as decoding does. Return their paths (`spec.containers[0].imagePulPolicy`)."""
    dropped: list[str] = []
    if typed.form == "untyped":
        return dropped
    if isinstance(value, dict):
        for name in tuple(value):
            declared = typed.child(name)
            inner_path = f"{path}.{name}" if path else name
            if declared is None:
                dropped.append(inner_path)
                del value[name]
            else:
                dropped += prune(declared, value[name], inner_path)
    elif isinstance(value, list) and typed.element is not None:
        for index, inner in enumerate(value):
            dropped += prune(typed.element, inner, f"{path}[{index}]")
    return dropped
