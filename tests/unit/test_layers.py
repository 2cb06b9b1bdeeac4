"""Size of the modules, and the only module that starts processes. Import rules are in pyproject.toml."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULES = sorted((ROOT / "sandboxes").rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            *MODULES,
            ROOT / "provisioner.py",
            *(ROOT / "devcluster").rglob("*.py"),
            *(ROOT / "scripts").rglob("*.py"),
            *(ROOT / "tests").rglob("*.py"),
        }
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_module_has_at_most_380_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 380


def _imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return named | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_only_one_module_starts_processes() -> None:
    starting = {
        path.stem for path in MODULES if "create_subprocess" in path.read_text() or "subprocess" in _imports(path)
    }
    assert starting == {"process"}
