"""Formats the lines of `provisioner.py check`, and derives its exit code. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.grammar import QuantityError, parse_quantity

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.ops.rights import Wanted


class Verdict(enum.Enum):
    """The result of a check, printed at the start of its line."""

    OK = "ok"
    FAIL = "FAIL"
    # Not allowed to check, or only an optional part is missing: the service still runs.
    NOT_PERMITTED = "not permitted"


@dataclass(frozen=True)
class Line:
    """The result of one check. `is_last`: no further check is possible."""

    verdict: Verdict
    text: str
    is_last: bool = False

    def __str__(self) -> str:
        return f"{self.verdict.value:<14}{self.text}"


def exit_code(lines: list[Line]) -> int:
    """Return 0 if no check failed, 1 if one did, 2 if the checks stopped early."""
    if any(line.is_last for line in lines):
        return 2
    return int(any(line.verdict is Verdict.FAIL for line in lines))


def rights_line(resource: str, wanted: Wanted, missing: list[str]) -> Line:
    """Return the line for the rights on a resource."""
    if not missing:
        return Line(Verdict.OK, f"rights on {resource}: {', '.join(wanted.verbs)}")
    if not set(wanted.needed).isdisjoint(missing):
        return Line(Verdict.FAIL, f"rights on {resource}: missing {', '.join(missing)}")
    return Line(Verdict.NOT_PERMITTED, f"rights on {resource}: {', '.join(missing)}; so {wanted.loss}")


def quota_line(quota: KubeObject) -> Line:
    """Return the line for a ResourceQuota. It fails if one of its resources is used up."""
    hard, used = quota.get("status", {}).get("hard") or {}, quota.get("status", {}).get("used") or {}
    full = [name for name in hard if name in used and _is_used_up(used[name], hard[name])]
    shares = ", ".join(f"{name} {used.get(name, '?')} of {hard[name]}" for name in sorted(hard)) or "not counted yet"
    return Line(Verdict.FAIL if full else Verdict.OK, f"quota {quota['metadata']['name']}: {shares}")


def _is_used_up(used: str, hard: str) -> bool:
    try:
        return parse_quantity(used) >= parse_quantity(hard)
    except QuantityError:
        return False
