"""Formats the parts of the gateway's reference that repeat the code; `scripts.docs` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.gateway.failures import FAILURES
from sandboxes.gateway.methods import METHODS
from scripts.docs_markdown import code, table

if TYPE_CHECKING:
    from sandboxes.gateway.failures import Failure


def failures_table() -> str:
    """Format the kinds of failures by status."""
    return table(
        ("Status", "Kind", "When"),
        (
            (_status(failure), code(kind), failure.meaning)
            for kind, failure in sorted(FAILURES.items(), key=lambda item: item[1].statuses or (1000,))
        ),
    )


def methods_text() -> str:
    """List the methods that reach sandboxes."""
    return ", ".join(code(method) for method in sorted(METHODS))


def _status(failure: Failure) -> str:
    statuses = ", ".join(str(int(status)) for status in failure.statuses) or "-"
    return statuses if failure.retry_after is None else f"{statuses}, with `Retry-After`"
