"""Generates what the project says of itself: the map of modules, the order of imports, the changes of a version."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from scripts.docs_markdown import table

ROOT = Path(__file__).resolve().parent.parent


def module_map() -> str:
    """Format every module with the first line of what it says of itself."""
    rows = []
    for path in sorted((ROOT / "sandboxes").rglob("*.py"), key=lambda one: (one.parent.parts, one.name)):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        name = path.relative_to(ROOT)
        rows.append((f"**`{name.parent}/`**" if name.stem == "__init__" else f"`{name}`", first.replace("|", "/")))
    return table(("Module", "What it does"), rows)


def layers_text() -> str:
    """Format the order of imports, from pyproject.toml."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(one["layers"] for one in told if one["type"] == "layers")
    return "\n".join(["```text", *(layer.replace(" : ", ", ") for layer in layers), "```"])


def changes() -> str:
    """Copy what changed in the newest version that has changes, from the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changed = r"^## \[(?P<version>[\d.]+)\](?:(?!^## ).)*?^### Changed\n(?P<what>.*?)(?=^##)"
    found = re.search(changed, text, re.MULTILINE | re.DOTALL)
    if found is None:
        return ""
    return f"### {found['version']}\n\n{found['what'].strip()}"
