"""What the gateway needs of the rest: the Pods that it may dial, and a place to report uses to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.access.tokens import Subject
    from sandboxes.objects import KubeObject
    from sandboxes.tasks import Signal


class Candidate(NamedTuple):
    """A sandbox's Pod, and what a token for it is checked against."""

    subject: Subject
    pod: KubeObject


class Pods(Protocol):
    """The sandboxes' Pods of all clusters, from live views. Never starts kubectl for a request."""

    @property
    def is_usable(self) -> bool:
        """Whether an id that `find` does not return is unknown: 404; else it may be unknown for now only: 503.

        It needs the view of each cluster. So ask for it only if no candidate has the token: a cluster whose view can't
        be used keeps the requests to the sandboxes of the others from nothing.
        """
        ...

    @property
    def changed(self) -> Signal[[str]]:
        """Sent with the id of a sandbox whose Pod has changed, or is gone."""
        ...

    def find(self, sandbox_id: str) -> Sequence[Candidate]:
        """Return the Pods of the sandbox that a token may be for: at most one for each cluster, none terminating.

        Only of views that have been whole, and whose last proof is not older than SANDBOX_GATEWAY_MAX_STALE.
        """
        ...

    def note_use(self, candidate: Candidate) -> None:
        """Record that the sandbox is used now; written at most once a minute, and never awaited."""
        ...

    def note_unreachable(self, candidate: Candidate) -> None:
        """Record that no host has the Pod's address (no route, or no answer), although its server may be up elsewhere.

        Until the view shows the Pod again, `find` returns it without its address, so that it counts as not ready. In a
        view that is current nothing changes: the API server says at this time that this is the address.
        """
        ...
