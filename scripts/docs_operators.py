"""Generates what operators look up: variables, metrics, the templates that are shipped, and the rights in a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandboxes.app import load_all_templates
from sandboxes.ops.gateway_metrics import GATEWAY_FAMILIES
from sandboxes.ops.metrics import FAMILIES
from sandboxes.ops.rights import rights_wanted
from sandboxes.settings import Settings
from scripts.docs_markdown import as_variable, code, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.ops.metrics import Family


def configuration_table() -> str:
    """Format every variable with its default, the values that it may have, and its meaning."""
    properties = Settings.model_json_schema(by_alias=False)["properties"]
    return table(
        ("Variable", "Default", "Values", "Meaning"),
        (
            (f"`{name.upper()}`", code(as_variable(field.default)), values(properties[name]), field.description or "")
            for name, field in Settings.model_fields.items()
        ),
    )


def values(schema: dict[str, Any]) -> str:
    """Describe what a variable may hold."""
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    match schema["type"]:
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            most = f" to {schema['maximum']}" if "maximum" in schema else " or more"
            return f"{schema['minimum']}{most}" + ("" if kind == "integer" else ", also fractions")
        case "array":
            return "list, by colons" if schema["items"].get("format") == "path" else "list, by commas"
        case _:
            return "path" if schema.get("format") == "path" else "text"


def metrics_table(families: Mapping[str, Family] = FAMILIES) -> str:
    """Format every metric with its labels and its meaning."""
    return table(
        ("Metric", "Kind", "Labels", "Meaning"),
        (
            (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels) or "-", one.meaning)
            for one in families.values()
        ),
    )


def gateway_metrics_table() -> str:
    """Format the gateway's metrics likewise."""
    return metrics_table(GATEWAY_FAMILIES)


def templates_table() -> str:
    """Format the templates that are shipped, with what each says of itself and the kinds of its own objects."""
    rows = (
        (f"`{name}`", one.description, ", ".join(sorted({extra["kind"] for extra in one.extras})) or "-")
        for name, one in sorted(load_all_templates(_defaults()).items())
    )
    return table(("Template", "What it is for", "Objects of its own"), rows)


def rights_table() -> str:
    """Format the rights in the sandboxes' namespace, with the templates that are shipped and nothing set."""
    wanted = rights_wanted(load_all_templates(_defaults()), _defaults()).items()
    rows = [
        (f"`{resource}`", ", ".join(verbs), loss)
        for resource, one in wanted
        for verbs, loss in ((one.needed, "it does not work"), (one.optional, one.loss))
        if verbs
    ]
    return table(("Resource", "Verbs", "Without them"), rows)


def _defaults() -> Settings:
    return Settings.model_construct()
