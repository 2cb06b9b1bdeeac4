"""The Kubernetes schema as types: fields, lists that are maps, atomic values.

Reads `data/schema.json` (the served kinds, from the OpenAPI schema of Kubernetes 1.36). Knows of objects only the types
of their JSON.
"""

import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal, Self

from devcluster.objects import Json, JsonValue

_PREFIX = "#/definitions/"
_SCALARS = ("string", "integer", "number", "boolean")

Form = Literal["scalar", "struct", "map", "list", "untyped"]


@dataclass(slots=True)
class Type:
    """The type of one field, in the terms of structured merge."""

    form: Form
    scalar: str = ""
    definition: str = ""
    """The referenced definition, such as `io.k8s.api.core.v1.Container`; empty for an inline type."""

    fields: dict[str, "Type"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    element: "Type | None" = None
    """The type of a map's or list's values."""

    atomic: bool = False
    """Whether it has a single owner: nodeSelector, a Service's selector, command."""

    keys: tuple[str, ...] = ()
    """The fields that identify an element, if the list is a map."""

    is_set: bool = False
    default: JsonValue = None

    @property
    def is_leaf(self) -> bool:
        """Whether field ownership ends here."""
        return self.form in ("scalar", "untyped") or self.atomic

    def child(self, name: str) -> "Type | None":
        """Return the type of a struct's field or a map's value; None if the schema does not declare it."""
        if self.form == "map":
            return self.element
        return self.fields.get(name)

    def key_of(self, element: Json) -> Json | None:
        """Return the key fields of an element of a list that is a map; None if one without a default is missing."""
        key = {}
        for name in self.keys:
            declared = self.element.fields.get(name) if self.element else None
            value = element.get(name, declared.default if declared else None)
            if value is None:
                return None
            key[name] = value
        return key


class Schema:
    """All definitions, and the cached types of them."""

    def __init__(self, definitions: Json) -> None:
        self.definitions = definitions
        self._types: dict[str, Type] = {}

    @classmethod
    def load(cls) -> Self:
        """Load the packaged schema."""
        text = resources.files("devcluster").joinpath("data/schema.json").read_text(encoding="utf-8")
        return cls(json.loads(text)["definitions"])

    def type_of(self, definition: str) -> Type:
        """Return the type of a definition by its full name."""
        if definition not in self._types:
            made = Type("struct", definition=definition)
            self._types[definition] = made  # cached before its fields, since a definition may refer to itself
            self._fill(made, self.definitions[definition])
        return self._types[definition]

    def _make(self, node: Json) -> Type:
        if "$ref" in node:
            return self._refer(node)
        made = Type("struct", default=node.get("default"))
        self._fill(made, node)
        return made

    def _refer(self, node: Json) -> Type:
        referred = self.type_of(node["$ref"].removeprefix(_PREFIX))
        if node.get("x-kubernetes-map-type") != "atomic" or referred.atomic:
            return referred
        return Type("struct", definition=referred.definition, fields=referred.fields, atomic=True)

    def _fill(self, made: Type, node: Json) -> None:
        declared = node.get("type", "object")
        made.atomic = node.get("x-kubernetes-map-type") == "atomic"
        made.required = tuple(node.get("required", ()))
        if declared in _SCALARS:
            made.form, made.scalar = "scalar", node.get("format", "") if self._is_either(node) else declared
        elif declared == "array":
            made.form, made.element = "list", self._make(node["items"])
            made.keys = tuple(node.get("x-kubernetes-list-map-keys", ()))
            made.is_set = node.get("x-kubernetes-list-type") == "set"
            made.atomic = not (made.keys or made.is_set)
        elif "properties" in node:
            made.fields = {name: self._make(child) for name, child in node["properties"].items()}
        elif "additionalProperties" in node:
            made.form, made.element = "map", self._make(node["additionalProperties"])
        else:
            made.form = "untyped"

    @staticmethod
    def _is_either(node: Json) -> bool:
        return bool(node.get("format") == "int-or-string")
