"""Generates JSON schemas from models, and examples of bodies from those of their fields. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode
    from pydantic_core import core_schema

Document: TypeAlias = "dict[str, Any]"

_REFERENCE = "#/components/schemas/{model}"


class _Schemas(GenerateJsonSchema):
    """Marks every field of an answer as required, since answers are sent with their defaults; but not `exclude_if`."""

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """Whether the field is always present."""
        is_sent = self.mode == "serialization" and "serialization_exclude_if" not in field
        return is_sent or super().field_is_required(field, total)


def reference(model: type[BaseModel]) -> Document:
    """Return a `$ref` to the schema of a model."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def schemas(models: list[tuple[type[BaseModel], JsonSchemaMode]]) -> dict[str, Document]:
    """Return the schemas of the models and of the models nested in them, by name."""
    _, made = models_json_schema(models, ref_template=_REFERENCE, schema_generator=_Schemas)
    found: dict[str, Document] = made["$defs"]
    for schema in found.values():
        # Titles only repeat the names.
        for one in (schema, *schema.get("properties", {}).values()):
            one.pop("title", None)
        _translate(schema)
    return dict(sorted(found.items()))


def _translate(schema: object) -> None:
    r"""Rewrite patterns in place for ECMA-262, as JSON Schema requires: `$` is the very end there, `\z` a letter."""
    if isinstance(schema, list):
        for one in schema:
            _translate(one)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                schema[key] = re.sub(r"\\z\Z", "$", value)
            else:
                _translate(value)


def example(schema: Document, known: dict[str, Document], fields: Document | None = None) -> Any:  # noqa: ANN401 - JSON
    """Return the example of a schema: its own, else one built from those of its fields or items.

    `known`: the schemas by name. `fields`: examples that override those of the fields. An optional field without an
    example is omitted; a required one raises KeyError.
    """
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        return example(known[schema["$ref"].rpartition("/")[2]], known, fields)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], known, fields)
    if schema.get("type") == "array":
        return [example(schema["items"], known)]
    given = fields or {}
    return {
        name: given[name] if name in given else example(field, known)
        for name, field in schema["properties"].items()
        if name in given or "examples" in field or name in schema.get("required", ())
    }
