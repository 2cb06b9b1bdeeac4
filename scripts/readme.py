"""Writes into README.md and CONTRIBUTING.md what is made from the code: variables, metrics, and the map of modules.

`python -m scripts.readme`; a test compares what stands there with what this would write.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sandboxes.ops.metrics import FAMILIES
from sandboxes.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def configuration_table() -> str:
    """Return the table of every variable, its default and its meaning."""
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = as_variable(field.default)
        lines.append(f"| `{name.upper()}` | {f'`{default}`' if default else '-'} | {field.description} |")
    return "\n".join(lines)


def as_variable(value: object) -> str:
    """Return a setting's value as the environment has it; empty for one that is unset."""
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


def metrics_table() -> str:
    """Return the table of every metric, its labels and its meaning."""
    lines = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for family in FAMILIES.values():
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.meaning} |")
    return "\n".join(lines)


def module_map() -> str:
    """Return the table of every module with the first line of what it says of itself."""
    lines = ["| Module | What it does |", "|---|---|"]
    for path in sorted((ROOT / "sandboxes").rglob("*.py"), key=lambda one: (one.parent.parts, one.name)):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        name = path.relative_to(ROOT)
        shown = f"**`{name.parent}/`**" if name.stem == "__init__" else f"`{name}`"
        lines.append(f"| {shown} | {first.replace('|', '/')} |")
    return "\n".join(lines)


def with_map(contributing: str) -> str:
    """Return CONTRIBUTING's text with its map of modules written anew."""
    return _replaced(contributing, "modules", module_map())


def with_generated(readme: str) -> str:
    """Return the README's text with its generated parts written anew."""
    readme = _replaced(readme, "configuration", configuration_table())
    return _replaced(readme, "metrics", metrics_table())


def _replaced(readme: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", readme)


if __name__ == "__main__":
    for path, generated in ((ROOT / "README.md", with_generated), (ROOT / "CONTRIBUTING.md", with_map)):
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
