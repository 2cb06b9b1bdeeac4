"""Models → JSON schemas as a caller reads them, and the example of a body from those of its fields. Pure."""

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
    """pydantic's schemas, in which every field of an answer is required: an answer is sent with its defaults."""

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """Whether the field is always there."""
        return self.mode == "serialization" or super().field_is_required(field, total)


def reference(model: type[BaseModel]) -> Document:
    """Return the reference to a model's schema."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def schemas(models: list[tuple[type[BaseModel], JsonSchemaMode]]) -> dict[str, Document]:
    """Return the schema of each model, and of the models in it, by name."""
    _, made = models_json_schema(models, ref_template=_REFERENCE, schema_generator=_Schemas)
    found: dict[str, Document] = made["$defs"]
    for schema in found.values():
        # Titles would be the names once more.
        for one in (schema, *schema.get("properties", {}).values()):
            one.pop("title", None)
        _translate(schema)
    return dict(sorted(found.items()))


def _translate(schema: object) -> None:
    r"""Write patterns as JSON Schema has them, by ECMA-262: there `$` is the very end, and `\z` is a letter."""
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
    """Return the example of a value: its own, else one that is made from those of its fields or items.

    `known`: the schemas by name. `fields`: examples that go over those of the fields. A field without an example is
    left out where it may be; raises KeyError where it may not.
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
