"""What the directory needs of a cluster and of a create, and the errors that it raises.

Every call raises ClusterUnavailable or ClusterTimeout if it has no answer. A write may have been done then, or may
still be done later: the directory relies on the resourceVersion and the uid only, never on a failure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sandboxes.errors import ClusterRefused, ClusterUnavailable, LimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.fleet.markers import Marker, Record


@dataclass(frozen=True)
class Pod:
    """A sandbox's Pod that is not terminating. `replaces`: the value of REPLACES_ANNOTATION, or empty.

    `is_unreturned`: a create has made it for this cluster, and none has returned it to a caller.
    """

    uid: str
    replaces: str = ""
    is_unreturned: bool = False


@dataclass(frozen=True)
class Look:
    """What a cluster has of an id: its Pod, its marker; and the cluster's record of names."""

    pod: Pod | None
    marker: Marker | None
    record: Record | None


@dataclass(frozen=True)
class Made:
    """A sandbox that a create returned. `is_new`: this create has made its Pod, and did not find it.

    Two creates may both hold that of one Pod: an apply does not say whether it has made the object, or changed it.
    `is_confirmed`: no maker withdraws it any more.
    """

    uid: str
    is_new: bool
    is_confirmed: bool = False


class ClusterViews(Protocol):
    """What the live views of one cluster show, without asking it."""

    def seen(self, sandbox_id: str) -> Look | None:
        """Return what live views have of the id; None where that does not show where the sandbox is.

        A marker may have been changed since. Where there is none but a Pod, there was none when the Pod was made, or
        its maker has removed it since. Both views are fresh.
        """
        ...

    def seen_pod(self, sandbox_id: str) -> Pod | None:
        """Return the Pod from the live view if it is fresh, unless it is terminating; None is no proof."""
        ...

    def still_has(self, record: Record) -> bool:
        """Whether the live view is fresh and shows this record of names, in this version; it may have changed since."""
        ...

    def seen_pods(self, *, also_parts: bool = False) -> Mapping[str, Pod] | None:
        """Return all Pods of sandboxes by id from the live view, without terminating ones; None if it is not fresh.

        `also_parts`: also those that lack the Service which they need.
        """
        ...

    def seen_markers(self) -> list[Marker] | None:
        """Return all markers from the live view, which may have been changed since; None if it is not fresh."""
        ...


class AskedCluster(Protocol):
    """What one cluster is asked. Each method is one attempt, with retries as the adapter likes."""

    async def look(self, sandbox_id: str) -> Look:
        """Read from the API server, in this order: the Pod, then the marker, then the record of names.

        One `kubectl get -f -` of the three references does that. Raises ForeignMarker if an object with such a name is
        not what it must be (`parse_marker`, `parse_record`). A terminating Pod counts as none.
        """
        ...

    async def record(self) -> Record | None:
        """Read the record of names from the API server."""
        ...

    async def pods(self) -> Mapping[str, Pod]:
        """Read all Pods of sandboxes by id from the API server, or from an informer that is proven newer than the call.

        Terminating ones are left out.
        """
        ...

    async def markers(self) -> list[Marker]:
        """Read all markers from the API server. One that is damaged is logged and left out."""
        ...

    async def withdraw(self, sandbox_id: str, uid: str, *, until_gone: bool = False) -> bool:
        """Delete the sandbox if its Pod has this uid and no create but the one that made it has returned it.

        True if a Pod with this uid is gone or terminating afterwards; with `until_gone` it is proven gone, and
        StillDeleting is raised if it is not in time. False if another create has returned it:
        `confirmed-at`, as the rollback of a failed create decides, with a resourceVersion as precondition.
        """
        ...

    async def confirm_pod(self, sandbox_id: str, uid: str, *, is_new: bool) -> bool:
        """Write onto the Pod with this uid that it is returned, so that no other create's `withdraw` deletes it.

        False if it is gone. `is_new`: by the create that has made it. Its own `withdraw` deletes it all the same, but
        not one that another create has returned.
        """
        ...

    async def delete_unreturned(self, sandbox_id: str, uid: str) -> bool:
        """Delete the sandbox if its Pod has this uid and no create has returned it; False if one has.

        With a resourceVersion as precondition: whoever returns a Pod writes that onto it before.
        """
        ...

    async def delete(self, sandbox_id: str) -> None:
        """Delete the sandbox, if it exists, as SandboxService.delete does; a caller has asked for that."""
        ...

    async def delete_pod(self, sandbox_id: str, uid: str) -> None:
        """Delete the sandbox if its Pod has exactly this uid (a precondition), whoever has returned it."""
        ...

    async def create_marker(self, marker: Marker) -> Marker:
        """Create the marker with `kubectl create` and return it as stored. Raises AlreadyThere if there is one."""
        ...

    async def update_marker(self, marker: Marker) -> Marker:
        """Replace the marker with this version and return it as stored: `kubectl replace` with a resourceVersion.

        Raises PreconditionFailed if it was changed or is gone.
        """
        ...

    async def delete_marker(self, marker: Marker) -> None:
        """Delete the marker with this version. Raises PreconditionFailed if it was changed; if it is gone, too."""
        ...

    async def put_record(self, record: Record) -> Record:
        """Create (version empty) or replace the record under its version, and return it as stored.

        Raises AlreadyThere or PreconditionFailed.
        """
        ...


class FleetCluster(AskedCluster, ClusterViews, Protocol):
    """One cluster. The directory asks it by Directory.asked, so that each error names it."""


class Make(Protocol):
    """Makes one sandbox on a cluster: SandboxService.create of that cluster, bound to a request."""

    async def __call__(self, cluster: str, replaces: str, *, may_move: bool) -> Made:
        """Return the sandbox, all or nothing. Idempotent: the same owner gets the existing one.

        A Pod that it found may be withdrawn by its maker, until it is confirmed (`confirm_pod`).
        `replaces`: value of REPLACES_ANNOTATION for a new Pod; empty for none. Raises LimitReached if the cluster is
        full, and, only if the caller waits and has no answer yet, Unschedulable. `may_move`: whether it may raise that,
        since another cluster can be tried.
        """
        ...


@dataclass(frozen=True)
class Member:
    """An entry of the clusters' file. `ready`: whether this replica would place sandboxes there now."""

    name: str
    weight: float = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False
    ready: bool = True


@dataclass(frozen=True)
class Wanted:
    """What a create says about clusters: `cluster` by name, `labels` that it must have, `on_cluster_loss: recreate`."""

    cluster: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    recreate: bool = False

    def fits(self, member: Member) -> bool:
        """Whether the sandbox may be placed on this cluster."""
        return self.cluster in (None, member.name) and self.labels.items() <= member.labels.items()


class NotReadable(ClusterUnavailable):
    """The cluster refuses what the directory reads or writes: the credentials, or a right. It gives no answer then."""


class ClusterAway(ClusterUnavailable):
    """`cluster` can't be asked and decides the answer, so there is none. Never a proof of absence.

    `marker`: name of the marker, in the cluster `home`, that is the only reason to ask it; empty if it is not.
    """

    def __init__(  # noqa: PLR0913 - each is independent of the others
        self,
        cluster: str,
        *,
        lost: bool = False,
        unlisted: bool = False,
        marker: str = "",
        home: str = "",
        detail: str = "",
    ) -> None:
        why = "is not in the list of clusters" if unlisted else "is lost" if lost else "can't be reached"
        by = f", by ConfigMap '{marker}' in cluster '{home}'" if marker else ""
        super().__init__(f"Cluster '{cluster}' {why}, and only it knows where this sandbox is{by}", detail=detail)
        self.cluster, self.marker = cluster, marker


class Rehoming(ClusterUnavailable):
    """The list of clusters is being changed, and the id's home with it."""

    def __init__(self) -> None:
        super().__init__("The list of clusters is being changed; this sandbox can be created when that is complete")


class KeepsMoving(ClusterUnavailable):
    """Gave up: other replicas keep changing where the sandbox is."""

    retry_after = 1

    def __init__(self) -> None:
        super().__init__("Other replicas keep changing where this sandbox is")


class ForeignMarker(ClusterRefused):
    """An object with the name of a marker or record is not one; its text is `public`."""


class NoClusterFits(LimitReached):
    """No cluster that fits the request accepts new sandboxes now."""

    def __init__(self) -> None:
        super().__init__("No cluster that fits the request accepts new sandboxes now")


class Unschedulable(LimitReached):
    """The sandbox was made as `uid`, and no node has room for it; its caller has no answer yet. No caller sees this."""

    def __init__(self, uid: str) -> None:
        super().__init__("No node of the cluster has room for the sandbox")
        self.uid = uid
