"""The lines that `provisioner.py check` prints, and the exit code that they come to. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.grammar import QuantityError, parse_quantity

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject


class Verdict(enum.Enum):
    """How a line begins."""

    OK = "ok"
    FAIL = "FAIL"
    # We may not look, or do without: the service runs all the same.
    NOT_PERMITTED = "not permitted"


@dataclass(frozen=True)
class Line:
    """What came of one question. `is_last`: nothing more can be asked."""

    verdict: Verdict
    text: str
    is_last: bool = False

    def __str__(self) -> str:
        return f"{self.verdict.value:<14}{self.text}"


def exit_code(lines: list[Line]) -> int:
    """Return 0 if nothing fails, 1 if something does, 2 if what matters could not even be asked."""
    if any(line.is_last for line in lines):
        return 2
    return int(any(line.verdict is Verdict.FAIL for line in lines))


def rights_line(resource: str, verbs: tuple[str, ...], missing: list[str], loss: str) -> Line:
    """Return the line for the rights on a resource; without those whose `loss` is named, the service runs."""
    if not missing:
        return Line(Verdict.OK, f"rights on {resource}: {', '.join(verbs)}")
    if loss:
        return Line(Verdict.NOT_PERMITTED, f"rights on {resource}: {', '.join(missing)}; so {loss}")
    return Line(Verdict.FAIL, f"rights on {resource}: missing {', '.join(missing)}")


def quota_line(quota: KubeObject) -> Line:
    """Return the line for a ResourceQuota, which fails where some of it is used up."""
    hard, used = quota.get("status", {}).get("hard") or {}, quota.get("status", {}).get("used") or {}
    full = [name for name in hard if name in used and _is_used_up(used[name], hard[name])]
    shares = ", ".join(f"{name} {used.get(name, '?')} of {hard[name]}" for name in sorted(hard)) or "not counted yet"
    return Line(Verdict.FAIL if full else Verdict.OK, f"quota {quota['metadata']['name']}: {shares}")


def _is_used_up(used: str, hard: str) -> bool:
    try:
        return parse_quantity(used) >= parse_quantity(hard)
    except QuantityError:
        return False
