"""Writes the parts of the docs that repeat the code: the reference, the map of modules, the changes of a version.

`python -m scripts.docs` writes all generated parts; with `--check` it changes nothing, names the files that are out of
date and ends with 1. A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxes.api.openapi import document as openapi
from sandboxes.api.openapi.failures import FAILURES
from sandboxes.api.openapi.operations import OPERATIONS
from sandboxes.app import load_all_templates
from sandboxes.deadlines import DEADLINES
from sandboxes.models.requests import ANSWER_SECONDS, OPTIONAL_FIELDS, CreateRequest
from sandboxes.ops.gateway_metrics import GATEWAY_FAMILIES
from sandboxes.ops.metrics import FAMILIES
from sandboxes.ops.rights import rights_wanted
from sandboxes.settings import Settings
from sandboxes.status.advice import SUMMARIES
from sandboxes.status.reasons import HOPELESS
from scripts.docs_gateway import PARTS as GATEWAY_PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sandboxes.api.openapi.failures import Failure
    from sandboxes.api.openapi.operations import Operation
    from sandboxes.ops.metrics import Family

ROOT = Path(__file__).resolve().parent.parent

LONGEST_PATTERN = 60

# Models with a page of their own.
ELSEWHERE = {CreateRequest.__name__: "create-options.md"}


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    return openapi.document()


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Format a Markdown table; escapes what would end a cell."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |" for line in lines)


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


def as_variable(value: object) -> str:
    """Format a setting's value as the environment has it; empty for one that is unset."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


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


def code(text: str) -> str:
    """Mark a text as code; `-` for none."""
    return f"`{text}`" if text else "-"


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


def layers_text() -> str:
    """Format the order of imports, from pyproject.toml."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(one["layers"] for one in told if one["type"] == "layers")
    return "\n".join(["```text", *(layer.replace(" : ", ", ") for layer in layers), "```"])


def reasons_table() -> str:
    """Format every reason with its advice, and whether a wait ends at it."""
    words = dict.fromkeys(("container", "image", "exit_code", "memory", "node"), "…")
    return table(
        ("`reason`", "`summary` in diagnostics", "Ends a wait"),
        (
            (f"`{reason}`", f"{text[0].upper()}{text[1:]}.", "yes" if reason in HOPELESS else "-")
            for reason, text in ((reason, sentence.format(**words)) for reason, sentence in SUMMARIES.items())
        ),
    )


def routes_table() -> str:
    """Format every route with its status codes."""
    return table(
        ("Route", "Success", "Failure", "What it does"),
        (
            (f"`{one.method} {one.path}`", "200", ", ".join(failures(one)) or "-", f"[{one.summary}](#{anchor(one)})")
            for one in OPERATIONS
        ),
    )


def failures(operation: Operation) -> list[str]:
    """List the status codes of the errors that the document has for an operation."""
    responses = document()["paths"][operation.path][operation.method.lower()]["responses"]
    return sorted(status for status in responses if int(status) >= 400)  # noqa: PLR2004 - HTTP's errors


def anchor(operation: Operation) -> str:
    """Name the heading of an operation as MyST and GitHub do: a second one of the same text gets a number."""
    before = OPERATIONS[: OPERATIONS.index(operation)]
    same = sum(one.summary == operation.summary for one in before)
    return operation.summary.lower().replace(",", "").replace(" ", "-") + (f"-{same}" if same else "")


def errors_table() -> str:
    """Format every status of an error with the sentences that say when it is answered."""
    by_status: dict[int, list[Failure]] = {}
    for failure in FAILURES.values():
        by_status.setdefault(failure.status, []).append(failure)
    return table(("Status", "When"), ((str(status), _sentences(those)) for status, those in sorted(by_status.items())))


def _sentences(failures_of_a_status: list[Failure]) -> str:
    """Join the sentences; of several, each with its name, by which the others may refer to it."""
    if len(failures_of_a_status) == 1:
        return failures_of_a_status[0].sentence
    return " ".join(f"`{failure.name}`: {failure.sentence}" for failure in failures_of_a_status)


def limits_table() -> str:
    """Format the time that each kind of request has."""
    create = DEADLINES.create + DEADLINES.undo
    return table(
        ("Request", "Answered within"),
        (
            ("create, its rollback included", f"{create:g} s"),
            ("delete", f"{DEADLINES.delete:g} s"),
            ("any read", f"{DEADLINES.read:g} s"),
            ("create or get with `wait_seconds`", f"{ANSWER_SECONDS} s, unless the create takes longer by itself"),
            ("`/readyz`", f"{DEADLINES.ready:g} s"),
            ("a body, until it has arrived", f"{DEADLINES.body:g} s"),
        ),
    )


def operations_text() -> str:
    """Describe every operation: parameters, body, answers and errors."""
    return "\n\n".join(_operation_text(operation) for operation in OPERATIONS)


def _operation_text(operation: Operation) -> str:
    told = document()["paths"][operation.path][operation.method.lower()]
    parts = [f"### {operation.summary}", f"`{operation.method} {operation.path}`", operation.description]
    if "parameters" in told:
        rows = ((f"`{one['name']}`", one["in"], kind(one["schema"]), one["description"]) for one in told["parameters"])
        parts.append(table(("Parameter", "In", "Type", "Meaning"), rows))
    if operation.body is not None:
        parts.append(f"Body: {_model_link(operation.body.__name__)}.")
    answers = [_model_link(model.__name__) for model in operation.answers]
    answers = answers or [f"`{media_type}`" for media_type in operation.media_types]
    also = " 304: not modified, by `If-None-Match`." if operation.is_cached else ""
    parts.append(f"200: {' or '.join(answers)}.{also} Errors: {', '.join(failures(operation)) or 'none of its own'}.")
    return "\n\n".join(parts)


def _model_link(name: str) -> str:
    return f"[{name}]({ELSEWHERE.get(name) or f'#{name.lower()}'})"


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


def module_map() -> str:
    """Format every module with the first line of what it says of itself."""
    rows = []
    for path in sorted((ROOT / "sandboxes").rglob("*.py"), key=lambda one: (one.parent.parts, one.name)):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        name = path.relative_to(ROOT)
        rows.append((f"**`{name.parent}/`**" if name.stem == "__init__" else f"`{name}`", first.replace("|", "/")))
    return table(("Module", "What it does"), rows)


def changes() -> str:
    """Copy what changed in the newest version that has changes, from the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changed = r"^## \[(?P<version>[\d.]+)\](?:(?!^## ).)*?^### Changed\n(?P<what>.*?)(?=^##)"
    found = re.search(changed, text, re.MULTILINE | re.DOTALL)
    if found is None:
        return ""
    return f"### {found['version']}\n\n{found['what'].strip()}"


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "CONTRIBUTING.md": {"modules": module_map},
    "docs/explanation/architecture.md": {"layers": layers_text},
    "docs/how-to/clusters.md": {"rights": rights_table},
    "docs/how-to/templates.md": {"templates": templates_table},
    "docs/how-to/upgrade.md": {"changes": changes},
    "docs/reference/rest-api.md": {
        "routes": routes_table,
        "errors": errors_table,
        "limits": limits_table,
        "operations": operations_text,
        "models": models_text,
    },
    "docs/reference/create-options.md": {"fields": create_table},
    "docs/reference/configuration.md": {"configuration": configuration_table},
    "docs/reference/gateway.md": GATEWAY_PARTS,
    "docs/reference/metrics.md": {"metrics": metrics_table, "gateway-metrics": gateway_metrics_table},
    "docs/reference/status-and-reasons.md": {"reasons": reasons_table},
}


def generated(name: str) -> str:
    """Return a file's text with its generated parts written anew; raises ValueError if one has no place in it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for part, make in PARTS[name].items():
        begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"{name} has no part {part}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def outdated() -> list[str]:
    """List the files whose generated parts are not what the code says."""
    return [name for name in PARTS if (ROOT / name).read_text(encoding="utf-8") != generated(name)]


def main() -> int:
    """Write the generated parts, or check them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.docs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if something is out of date")
    names = outdated()
    if parser.parse_args().check:
        for name in names:
            print(f"out of date: {name}; run: python -m scripts.docs", file=sys.stderr)  # noqa: T201
        return 1 if names else 0
    for name in names:
        (ROOT / name).write_text(generated(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
