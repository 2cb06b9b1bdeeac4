"""The modules: who may import whom, and how large they get."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each may import only from those that stand after it.
ORDER = [
    "server",
    "api",
    "pages",
    "docs",
    "openapi",
    "operations",
    "examples",
    "sentences",
    "bodies",
    "streams",
    "checks",
    "health",
    "metrics",
    "preflight",
    "lifecycle",
    "feed",
    "waits",
    "reach",
    "listing",
    "queries",
    "keys",
    "callers",
    "reaper",
    "reaping",
    "creation",
    "attempts",
    "extras",
    "protection",
    "room",
    "uses",
    "lives",
    "diagnostics",
    "cluster",
    "answers",
    "view",
    "deaths",
    "watch",
    "recent",
    "limits",
    "retries",
    "connection",
    "credentials",
    "waiting",
    "grouped",
    "groups",
    "kubectl",
    "processes",
    "printed",
    "wire",
    "failures",
    "withheld",
    "summaries",
    "reasons",
    "status",
    "access",
    "manifests",
    "network",
    "lifetimes",
    "asks",
    "templates",
    "mounts",
    "kube",
    "settings",
    "variables",
    "listening",
    "hosts",
    "models",
    "quantities",
    "peers",
    "kubeconfig",
    "logs",
    "masking",
    "errors",
]
MODULES = sorted(path for path in (ROOT / "sandboxes").glob("*.py") if path.stem != "__init__")


@functools.cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "sandboxes":
            found |= {f"sandboxes.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_arrows_point_one_way(path: Path) -> None:
    below = {f"sandboxes.{name}" for name in ORDER[ORDER.index(path.stem) + 1 :]}
    assert {name for name in imports(path) if name.startswith("sandboxes")} <= below


PURE = [
    "docs",
    "openapi",
    "manifests",
    "summaries",
    "asks",
    "quantities",
    "answers",
    "lifetimes",
    "reaping",
    "reasons",
    "status",
    "access",
    "kube",
    "recent",
    "failures",
    "wire",
    "mounts",
    "models",
    "variables",
    "listening",
    "callers",
    "hosts",
    "withheld",
    "kubeconfig",
    "masking",
]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_neither_kubectl_nor_http(name: str) -> None:
    found = imports(ROOT / "sandboxes" / f"{name}.py")
    assert not found & {"sandboxes.kubectl", "sandboxes.processes", "asyncio", "subprocess"}
    assert not any(one.startswith("aiohttp") for one in found)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_service_does_not_know_the_stand_in(path: Path) -> None:
    assert not any(name.startswith(("devcluster", "tests", "kmock")) for name in imports(path))


@pytest.mark.parametrize(
    "path",
    sorted([*MODULES, *(ROOT / "devcluster").glob("*.py"), ROOT / "provisioner.py"]),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_a_module_can_be_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 440


def test_only_one_module_starts_processes() -> None:
    starting = {
        path.stem for path in MODULES if "create_subprocess" in path.read_text() or "subprocess" in imports(path)
    }
    assert starting == {"processes"}
