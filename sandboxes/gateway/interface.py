"""What the gateway needs of the rest: the Pods that it may dial, and a place to report uses to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.access.tokens import Keys, Subject
    from sandboxes.deadlines import Deadlines
    from sandboxes.gateway_settings import GatewaySettings
    from sandboxes.objects import KubeObject
    from sandboxes.tasks import Signal


class Candidate(NamedTuple):
    """A sandbox's Pod, and what a token for it is checked against.

    `may_be_loopback`: whether its address may be one of this machine's loopback.
    """

    subject: Subject
    pod: KubeObject
    may_be_loopback: bool = False


class Pods(Protocol):
    """The sandboxes' Pods of all clusters, from live views. Never starts kubectl for a request."""

    @property
    def is_usable(self) -> bool:
        """Whether an id that `find` does not return is unknown: 404; else it may be unknown for now only: 503.

        It needs the view of each cluster. So ask for it only if no candidate has the token: a cluster whose view can't
        be used stops no request to a sandbox of another cluster.
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

    def note_dial(self, candidate: Candidate, *, reached: bool) -> None:
        """Record whether a host answered at the Pod's address; one that refuses the port has answered.

        If none has, `find` returns the Pod without its address until the view shows it again, so that it counts as not
        ready. Not while the view is current: the API server says at this time that this is the address.
        """
        ...


class GatewayMetrics(Protocol):
    """Where the gateway counts. No value has an id."""

    def answered(self, kind: str, status: int) -> None:
        """Count a request. `kind`: `http` or `websocket`; `status`: of its response; 0: its caller left before."""
        ...

    def moved(self, from_callers: int, from_sandboxes: int) -> None:
        """Count bytes, with heads; often while a connection lasts."""
        ...

    def changed_open(self, by: int) -> None:
        """Count requests and WebSockets that begin (1) or end (-1)."""
        ...

    def dialled(self, seconds: float) -> None:
        """Record the time of a dial that succeeded."""
        ...

    def failed(self, kind: str) -> None:
        """Count a failure. `kind`: a word of FAILURES in failures.py."""
        ...


class Ground(NamedTuple):
    """All that the gateway needs of the rest."""

    pods: Pods
    keys: Keys
    settings: GatewaySettings
    metrics: GatewayMetrics
    deadlines: Deadlines
