"""What the reaper deletes, and why. Pure.

Only what bears our own `app.kubernetes.io/managed-by`. What is on its way out already is nobody's any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.status.words import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


Kind = Literal["expired", "idle", "ended", "half"]


@dataclass(frozen=True)
class Doomed:
    """What of one sandbox is to be deleted: these very versions, in this order.

    One of `kind` "half" was never completed, or has lost its other half a moment ago; nothing in it tells which.
    """

    sandbox_id: str
    reason: str
    objects: tuple[KubeObject, ...]
    kind: Kind

    @property
    def is_half(self) -> bool:
        """Whether it is there only by half."""
        return self.kind == "half"


def doomed_of(objects: Iterable[KubeObject], settings: Settings, now: datetime) -> list[Doomed]:
    """Return, sorted by id, what is to be deleted of these Pods and Services, which are all that there are."""
    sandboxes: dict[str, dict[str, KubeObject]] = {}
    for obj in objects:
        sandbox_id = kube.sandbox_id_of(obj)
        if sandbox_id is not None:
            sandboxes.setdefault(sandbox_id, {})[obj["kind"]] = obj
    found = []
    for sandbox_id, of_it in sorted(sandboxes.items()):
        pod, service = of_it.get("Pod"), of_it.get("Service")
        ending = None if pod is None else reason_to_end(pod, settings, now)
        half = None if ending else reason_of_half(pod, service, settings, now)
        kind, reason = ending or ("half", half)
        if reason:
            # The Pod first: without it nothing is left that could do anything, and its Service is a half.
            ours = [one for one in (pod, service) if one is not None and _is_ours(one)]
            found.append(Doomed(sandbox_id, reason, tuple(ours), kind))
    return found


def reason_to_end(pod: KubeObject, settings: Settings, now: datetime) -> tuple[Kind, str] | None:
    """Return why this Pod's life is over, as a kind and in words, or None if it is not."""
    if not _is_ours(pod):
        return None
    if expiry.ttl_ends_at(pod) <= now:
        return "expired", f"it expired at {expiry.text_of(expiry.ttl_ends_at(pod))}"
    if expiry.ends_at(pod) <= now:
        return "idle", f"it was not used since {expiry.text_of(expiry.used_at(pod))}"
    if has_ended(pod) and expiry.ended_at(pod) + timedelta(seconds=settings.ended_ttl) <= now:
        return "ended", f"it ended at {expiry.text_of(expiry.ended_at(pod))}"
    return None


def reason_of_half(pod: KubeObject | None, service: KubeObject | None, settings: Settings, now: datetime) -> str | None:
    """Return why a Pod without a Service, or the other way round, is to be deleted, or None if it is not."""
    there = [one for one in (pod, service) if one is not None]
    if len(there) != 1 or not _is_ours(there[0]):
        return None
    changed_at = expiry.touched_at(there[0])
    if changed_at + timedelta(seconds=settings.reaper_grace) > now:
        return None
    return f"its {'Service' if service is None else 'Pod'} is missing"


def _is_ours(obj: KubeObject) -> bool:
    """Whether we may delete it, and nobody has yet."""
    return kube.is_managed(obj) and not kube.is_terminating(obj)
