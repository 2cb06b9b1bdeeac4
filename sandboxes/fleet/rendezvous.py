"""Rendezvous hashing: the home of an id, and the order in which clusters are tried. Pure.

The same on every replica, machine and Python version: SHA-256, and for the home integers only.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Bits of the hash that a weighted score uses: a float holds them exactly.
_BITS = 52


def _hash(sandbox_id: str, name: str) -> int:
    # Neither a name nor an id contains a zero byte, so no two pairs have the same text.
    return int.from_bytes(hashlib.sha256(f"{name}\0{sandbox_id}".encode()).digest())


def home(sandbox_id: str, names: Iterable[str]) -> str:
    """Return the name with the highest hash. `names` is not empty; adding one moves ids only to it."""
    return max(names, key=lambda name: (_hash(sandbox_id, name), name))


def order(sandbox_id: str, weights: Mapping[str, float]) -> list[str]:
    """Return the names whose weight is above 0, in the order in which to try them; likely ones of much weight first.

    Each is first for a share of the ids that is proportional to its weight. With equal weights, the first is the home.
    """

    def score(name: str) -> tuple[float, int, str]:
        value = _hash(sandbox_id, name)
        uniform = ((value >> (256 - _BITS)) + 0.5) / 2**_BITS
        return -weights[name] / math.log(uniform), value, name

    return sorted((name for name, weight in weights.items() if weight > 0), key=score, reverse=True)
