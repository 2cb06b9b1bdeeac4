"""The Kubernetes schema as types: which fields there are, which lists are maps, what is atomic.

Reads `data/schema.json` (the kinds that are served, from the OpenAPI schema of Kubernetes 1.36) and answers questions
about it. Knows nothing of objects but how their JSON is typed.
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
    """How one field is typed, in the words of structured merge."""

    form: Form
    scalar: str = ""
    definition: str = ""
    """The definition it refers to, such as `io.k8s.api.core.v1.Container`; empty for what is written in place."""

    fields: dict[str, "Type"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    element: "Type | None" = None
    """Of a map or a list: the type of its values."""

    atomic: bool = False
    """Whether it has one owner as a whole: nodeSelector, a Service's selector, command."""

    keys: tuple[str, ...] = ()
    """Of a list that is a map: the fields that identify an element."""

    is_set: bool = False
    default: JsonValue = None

    @property
    def is_leaf(self) -> bool:
        """Tell whether field ownership ends here."""
        return self.form in ("scalar", "untyped") or self.atomic

    def child(self, name: str) -> "Type | None":
        """Give the type of a struct's field, or of a map's value; None when the schema declares none."""
        if self.form == "map":
            return self.element
        return self.fields.get(name)

    def key_of(self, element: Json) -> Json | None:
        """Give what identifies an element of a list that is a map; None when a key without a default is missing."""
        key = {}
        for name in self.keys:
            declared = self.element.fields.get(name) if self.element else None
            value = element.get(name, declared.default if declared else None)
            if value is None:
                return None
            key[name] = value
        return key


class Schema:
    """All definitions, and the types made from them once."""

    def __init__(self, definitions: Json) -> None:
        self.definitions = definitions
        self._types: dict[str, Type] = {}

    @classmethod
    def load(cls) -> Self:
        """Read the packaged schema."""
        text = resources.files("devcluster").joinpath("data/schema.json").read_text(encoding="utf-8")
        return cls(json.loads(text)["definitions"])

    def type_of(self, definition: str) -> Type:
        """Give the type of a definition, by its full name."""
        if definition not in self._types:
            made = Type("struct", definition=definition)
            self._types[definition] = made  # first the name, then the fields: a definition may refer to itself
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
