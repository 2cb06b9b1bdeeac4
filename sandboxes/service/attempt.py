"""The state of one create attempt: its objects, and which existing objects it may have made. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.status.reasons import has_ended

if TYPE_CHECKING:
    from datetime import datetime

    from sandboxes.access.accesses import Accesses
    from sandboxes.objects import KubeObject
    from sandboxes.service.template_objects import TemplateObjects
    from sandboxes.spec.options import Sandbox


# How far the clocks of one cluster's API servers may differ. This process's clock is not compared with theirs.
CLOCKS_DIFFER = timedelta(seconds=DEADLINES.clocks_differ)

# `kube.owner_of` for a Pod without owner annotations.
NOBODY = (None, None)


@dataclass
class Attempt:
    """One create.

    `objects`: the Pod, and the Service, which a new sandbox or an existing Pod gets if its access needs one.
    `before`: uids of the Pod and Service that it found, each with its `applied-at`; `applied`: it may have written to
    the cluster; `without_patch`: it creates its objects instead of applying them; `waits_for_deletion`: the object that
    it waits for to be gone; `forced`: it deleted a lost Pod by force; `began`: a time that the API server's clock had
    reached when the attempt began, None if it is unknown; `may_be_withdrawn`: its maker may delete the new Pod after
    all, unless another create has returned it. So a found Pod must be confirmed before it is returned, in the same
    process, too: by the caller of the create, who may not return it yet. That takes the right to patch.
    """

    sandbox: Sandbox
    objects: list[KubeObject]
    extras: TemplateObjects
    before: dict[str, str | None] | None = None
    applied: bool = False
    without_patch: bool = False
    waits_for_deletion: KubeObject | None = None
    forced: bool = False
    began: datetime | None = None
    may_be_withdrawn: bool = False

    @property
    def applied_at(self) -> str:
        """The `applied-at` annotation of this attempt's objects, unique to it."""
        return kube.get_annotations(self.objects[0])[kube.APPLIED_AT_ANNOTATION]

    def has_marked(self, obj: KubeObject | None) -> bool:
        """Whether this attempt was the last to apply or create the object."""
        return obj is not None and mark_of(obj) == self.applied_at

    def may_have_made(self, obj: KubeObject | None) -> bool:
        """Whether this attempt created the object, and no other writer has applied or confirmed it since.

        Its marks say so. Excludes objects that another create has confirmed or returned to a caller; and, since the
        live view may have missed them, objects that are older than the attempt by the API server's own times.
        """
        if obj is None or obj["metadata"]["uid"] in (self.before or ()):
            return False
        if self.began is not None and expiry.created_at(obj) < self.began - CLOCKS_DIFFER:
            return False
        return self.has_marked(obj) and not is_returned(obj, self.applied_at)

    def is_unconfirmed(self, pod: KubeObject) -> bool:
        """Whether the maker of the Pod, which is another create, may withdraw it."""
        return self.may_be_withdrawn and not self.may_have_made(pod) and needs_confirmation(pod)

    def may_replace(self, service: KubeObject | None, pod: KubeObject) -> bool:
        """Whether this attempt made the Pod, and the Service is left over from an earlier sandbox of the id.

        It is not left over where another process may have completed the Pod by it, and returned it to a caller. Such a
        process can patch: it has confirmed the Pod, or has applied the Service after this attempt read it, without
        labels that the Pod was not made with.
        """
        if service is None or self.has_marked(service) or not self.has_marked(pod):
            return False
        if kube.CONFIRMED_ANNOTATION in kube.get_annotations(pod):
            return False
        uid = service["metadata"]["uid"]
        if self.before is not None and uid in self.before and self.before[uid] == mark_of(service):
            return True
        return not kube.get_labels(service).items() <= kube.get_labels(self.objects[1]).items()

    def is_over(self, pod: KubeObject) -> bool:
        """Whether the Pod has ended, or has expired and the request does not set a new TTL; see expiry.py on clocks."""
        has_expired = expiry.ttl_ends_at(pod) <= expiry.present()
        return has_ended(pod) or (has_expired and self.sandbox.ttl_seconds is None)

    def is_made(self, pod: KubeObject | None, service: KubeObject | None, accesses: Accesses) -> bool:
        """Whether the Pod and the Service, if it needs one, make a complete, live sandbox of this attempt's owner."""
        if pod is None or not self.is_owners(pod) or self.is_over(pod):
            return False
        return accesses.of(pod, service).is_whole(pod, service)

    def is_owners(self, pod: KubeObject) -> bool:
        """Whether the Pod has the same owner as this attempt."""
        return kube.owner_of(pod) == kube.owner_of(self.objects[0])


def needs_confirmation(pod: KubeObject) -> bool:
    """Whether the Pod's maker may still roll it back: it has its mark, and no process has confirmed it.

    Not judged by the Pod's age, since the maker's clock may differ from ours.
    """
    marks = kube.get_annotations(pod)
    return kube.APPLIED_AT_ANNOTATION in marks and kube.CONFIRMED_ANNOTATION not in marks


def is_older(service: KubeObject, pod: KubeObject) -> bool:
    """Whether the Service may have been there before the Pod, by the API server's times, and was not applied with it.

    Those times have a resolution of a second.
    """
    return mark_of(service) != mark_of(pod) and expiry.created_at(service) <= expiry.created_at(pod)


def is_returned(pod: KubeObject, mark: str | None = None) -> bool:
    """Whether a create has returned the Pod to a caller, or is about to; not counting the one of this `mark`."""
    marks = kube.get_annotations(pod)
    return kube.CONFIRMED_ANNOTATION in marks or marks.get(kube.RETURNED_ANNOTATION, mark) != mark


def mark_of(obj: KubeObject) -> str | None:
    """Return the `applied-at` annotation of the object, unique to the attempt that applied it last."""
    return kube.get_annotations(obj).get(kube.APPLIED_AT_ANNOTATION)


def now() -> str:
    """Return the current time in RFC 3339 with microseconds, for `applied-at`."""
    return expiry.text_of(expiry.present())


def marks_only(new_pod: KubeObject, pod: KubeObject) -> KubeObject:
    """Return a manifest that sets the metadata of `new_pod` on `pod`; its uid makes the apply fail for another Pod.

    Not how it is reached: that stays as it is for an existing Pod. Source: kubectl.md 16.
    """
    annotations = {key: value for key, value in kube.get_annotations(new_pod).items() if key != kube.ACCESS_ANNOTATION}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**new_pod["metadata"], "annotations": annotations, "uid": pod["metadata"]["uid"]},
    }
