"""A Pod on the node, as the kubelet keeps it."""

from dataclasses import dataclass, field

from devcluster.clock import Timer
from devcluster.podstatus import PodState

Key = tuple[str, str]


@dataclass(slots=True)
class PlacedPod:
    """One Pod on the node, and its pending timers."""

    key: Key
    uid: str
    state: PodState
    timers: list[Timer] = field(default_factory=list)
    serving: bool = False
    ends_at: float | None = None
    """Time at which its containers will have ended; None unless it terminates."""

    heedless: bool = False
    frozen: bool = False
