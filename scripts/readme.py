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
        default = field.default
        default = ", ".join(default) if isinstance(default, tuple) else default
        unset = default is None or default == "" or default is False
        lines.append(f"| `{name.upper()}` | {'-' if unset else f'`{default}`'} | {field.description} |")
    return "\n".join(lines)


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
