"""Formats the parts of the gateway's reference that repeat the code; `scripts.docs` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.gateway.failures import FAILURES
from sandboxes.gateway.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.gateway.failures import Failure


def failures_table() -> str:
    """Format the kinds of failures by status."""
    rows = ["| Status | Kind | When |", "| --- | --- | --- |"]
    for kind, failure in sorted(FAILURES.items(), key=lambda item: item[1].statuses or (1000,)):
        rows.append(f"| {_status(failure)} | `{kind}` | {failure.meaning} |")
    return "\n".join(rows)


def methods_text() -> str:
    """List the methods that reach sandboxes."""
    return ", ".join(f"`{method}`" for method in sorted(METHODS))


def _status(failure: Failure) -> str:
    statuses = ", ".join(str(int(status)) for status in failure.statuses) or "-"
    return statuses if failure.retry_after is None else f"{statuses}, with `Retry-After`"


PARTS: dict[str, Callable[[], str]] = {"methods": methods_text, "failures": failures_table}
