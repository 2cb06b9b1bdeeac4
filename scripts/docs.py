"""Writes the parts of the docs that repeat the code: the reference, the map of modules, the changes of a version.

`python -m scripts.docs` writes all generated parts; with `--check` it changes nothing, names the files that are out of
date and ends with 1. A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. To add one, write its
generator in the module beside this one that has its topic, and name it in PARTS.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from scripts import docs_api, docs_bodies, docs_gateway, docs_operators, docs_project
from scripts.docs_project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "CONTRIBUTING.md": {"modules": docs_project.module_map},
    "docs/explanation/architecture.md": {"layers": docs_project.layers_text},
    "docs/how-to/clusters.md": {"rights": docs_operators.rights_table},
    "docs/how-to/templates.md": {"templates": docs_operators.templates_table},
    "docs/how-to/upgrade.md": {"changes": docs_project.changes},
    "docs/reference/rest-api.md": {
        "routes": docs_api.routes_table,
        "errors": docs_api.errors_table,
        "limits": docs_api.limits_table,
        "operations": docs_api.operations_text,
        "models": docs_bodies.models_text,
    },
    "docs/reference/create-options.md": {"fields": docs_bodies.create_table},
    "docs/reference/configuration.md": {"configuration": docs_operators.configuration_table},
    "docs/reference/gateway.md": {
        "methods": docs_gateway.methods_text,
        "failures": docs_gateway.failures_table,
    },
    "docs/reference/metrics.md": {
        "metrics": docs_operators.metrics_table,
        "gateway-metrics": docs_operators.gateway_metrics_table,
    },
    "docs/reference/status-and-reasons.md": {"reasons": docs_api.reasons_table},
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
