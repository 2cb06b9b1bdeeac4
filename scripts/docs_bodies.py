"""Generates the tables of fields of requests and answers, from the OpenAPI document."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sandboxes.api.openapi import document as openapi
from sandboxes.models.requests import OPTIONAL_FIELDS, CreateRequest
from sandboxes.settings import Settings
from scripts.docs_markdown import as_variable, table

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_PATTERN = 60

# Models with a page of their own.
ELSEWHERE = {CreateRequest.__name__: "create-options.md"}


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    return openapi.document()


def models_text() -> str:
    """Format the fields of every body that has no page of its own."""
    schemas: dict[str, Any] = document()["components"]["schemas"]
    return "\n\n".join(
        f"### {name}\n\n{schema['description']}\n\n{_fields_table(schema)}"
        for name, schema in schemas.items()
        if name not in ELSEWHERE
    )


def _fields_table(schema: dict[str, Any]) -> str:
    rows = (
        (f"`{name}`", kind(field) + ("" if name in schema.get("required", ()) else ", optional"), field["description"])
        for name, field in schema["properties"].items()
    )
    return table(("Field", "Type", "Meaning"), rows)


def create_table() -> str:
    """Format the fields of a create, with whether callers may use them by default."""
    schema = document()["components"]["schemas"][CreateRequest.__name__]
    allowed = set(Settings.model_fields["allow_fields"].default)
    rows = (
        (
            f"`{name}`",
            "by default" if name in allowed else "by `ALLOW_FIELDS`" if name in OPTIONAL_FIELDS else "always",
            kind(field),
            _default(schema, name),
            field["description"],
        )
        for name, field in schema["properties"].items()
    )
    return table(("Field", "Allowed", "Type", "Default", "Meaning"), rows)


def _default(schema: dict[str, Any], name: str) -> str:
    if name in schema["required"]:
        return "required"
    value = schema["properties"][name].get("default")
    return "-" if value is None or value == [] else f"`{as_variable(value)}`"


def model_link(name: str) -> str:
    """Link a model, on its page or by its heading."""
    return f"[{name}]({ELSEWHERE.get(name) or f'#{name.lower()}'})"


def kind(schema: dict[str, Any]) -> str:
    """Describe the type of a field, with its bounds."""
    bounds = ", ".join(_bounds(schema))
    return f"{_type(schema)} ({bounds})" if bounds else _type(schema)


def _type(schema: dict[str, Any]) -> str:
    match schema:
        case {"anyOf": choices}:
            return " or ".join("null" if one.get("type") == "null" else kind(one) for one in choices)
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](rest-api.md#{name.lower()})"
        case {"const": value}:
            shown = f"`{as_variable(value)}`"
        case {"enum": words}:
            shown = "one of " + ", ".join(f"`{word}`" for word in words)
        case {"type": "array", "items": items}:
            shown = f"list of {kind(items)}"
        case {"type": "object", "additionalProperties": dict(inner)}:
            shown = f"object of {kind(inner)}"
        case _:
            shown = schema.get("type", "any")
    return shown


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "maxItems": "at most {} items",
        "maxProperties": "at most {} entries",
        "pattern": "`{}`",
    }
    for key, text in words.items():
        # A long pattern says nothing to a person; /openapi.json has it.
        if key in schema and len(str(schema[key])) <= LONGEST_PATTERN:
            yield text.format(schema[key])
