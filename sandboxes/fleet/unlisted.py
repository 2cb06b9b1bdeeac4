"""Logs what the file does not say about clusters when it is read at a start."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger(__name__)


def log_unknown(new: Collection[str], missing: Collection[str], silent: Collection[str]) -> None:
    """Log, in one line, what can't be known; nothing if that is nothing.

    `new`: clusters that a record names and the file lacks; `missing`: clusters without a record; `silent`: clusters
    that gave no answer.
    """
    parts = []
    if new:
        parts.append(
            f"the record of clusters names {', '.join(new)}, which the file lacks: what is there is not known, so "
            "sandboxes that may be there are neither served nor made anew, until the file has the entry again, or "
            "has had it with `lost: true`"
        )
    if missing:
        parts.append(f"no record of clusters yet in {', '.join(missing)}: earlier lists, if any, are not known")
    if silent:
        parts.append(f"no answer from {', '.join(silent)}: whether a record there names other clusters is not known")
    if parts:
        level = logging.WARNING if new else logging.INFO
        logger.log(level, "CLUSTERS_FILE is believed at the start; %s", "; ".join(parts))
