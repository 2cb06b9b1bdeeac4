"""Writes into README.md what is made from the code: the tables of variables and of metrics.

`python -m scripts.readme`; a test compares what stands there with what this would write.
"""

from __future__ import annotations

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


def with_generated(readme: str) -> str:
    """Return the README's text with its generated parts written anew."""
    readme = _replaced(readme, "configuration", configuration_table())
    return _replaced(readme, "metrics", metrics_table())


def _replaced(readme: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_generated(path.read_text(encoding="utf-8")), encoding="utf-8")
