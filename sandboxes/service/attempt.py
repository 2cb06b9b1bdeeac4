"""One try to make a sandbox: what it is for, what was there before it, and what may be its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.status.reasons import has_ended
from sandboxes.status.response import is_whole

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.service.template_objects import TemplateObjects
    from sandboxes.settings import Settings
    from sandboxes.spec.options import Sandbox


# How far the API server's clock may be behind ours; its times are whole seconds.
CLOCKS_DIFFER = timedelta(seconds=DEADLINES.clocks_differ)

# The owner of a Pod without our annotations.
NOBODY = (None, None)


@dataclass
class Attempt:
    """One create: what was there before it, and what it may have put there."""

    sandbox: Sandbox
    objects: list[KubeObject]
    extras: TemplateObjects
    before: set[str] | None = None
    applied: bool = False
    waits_for_deletion: bool = False

    @property
    def applied_at(self) -> str:
        """The mark that no other try's objects bear."""
        return kube.get_annotations(self.objects[0])[kube.APPLIED_AT_ANNOTATION]

    def may_have_made(self, obj: KubeObject | None) -> bool:
        """Whether this create, and nobody since, has applied the object, and it was not there before.

        The view may not have known what was there before, so what is older than this create is not its own either. Nor
        is what another process has confirmed, which has returned it to a caller.
        """
        if obj is None or obj["metadata"]["uid"] in (self.before or ()):
            return False
        if expiry.created_at(obj) < datetime.fromisoformat(self.applied_at) - CLOCKS_DIFFER:
            return False
        marks = kube.get_annotations(obj)
        return marks.get(kube.APPLIED_AT_ANNOTATION) == self.applied_at and kube.CONFIRMED_ANNOTATION not in marks

    def is_over(self, pod: KubeObject) -> bool:
        """Whether the Pod's life is over: it has ended, or expired and is not asked to live on."""
        has_expired = expiry.ttl_ends_at(pod) <= expiry.present()
        return has_ended(pod) or (has_expired and self.sandbox.ttl_seconds is None)

    def is_made(self, pod: KubeObject | None, service: KubeObject | None, settings: Settings) -> bool:
        """Whether this is a whole sandbox of the owner that this try is for."""
        if pod is None or service is None or not self.is_owners(pod) or self.is_over(pod):
            return False
        return is_whole(pod, service, settings)

    def is_owners(self, pod: KubeObject) -> bool:
        """Whether the Pod belongs to the owner that this try is for."""
        return kube.owner_of(pod) == kube.owner_of(self.objects[0])


def now() -> str:
    """Return the present as an RFC 3339 time with microseconds, for `applied-at`."""
    return expiry.text_of(expiry.present())


def marks_only(new_pod: KubeObject, pod: KubeObject) -> KubeObject:
    """Return what gives an existing Pod our marks, and fails if it is no longer that very Pod (kubectl.md 16)."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**new_pod["metadata"], "uid": pod["metadata"]["uid"]},
    }
