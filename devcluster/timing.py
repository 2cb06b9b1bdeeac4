"""How long the containers of a Pod take, in cluster time, and when their probes succeed. Pure."""

from dataclasses import dataclass, field

from devcluster.objects import Json


@dataclass(slots=True)
class Timing:
    """Durations, in seconds of cluster time. They may be changed at any time."""

    start_after: float = 0.1
    """From scheduling until the containers run."""

    ready_after: float = 0.3
    """From the start of the containers until a probe can first succeed."""

    server_takes: float = 0.2
    """From the start of a container until its server answers."""

    by_image: dict[str, float] = field(default_factory=dict)
    """The same, for the containers of some images."""

    stop_takes: float = 0.1
    """From SIGTERM until a container has ended, at most its grace period."""

    def server_delay(self, image: str) -> float:
        """Return the startup time of an image's server."""
        return self.by_image.get(image, self.server_takes)


def first_success(probe: Json, answers: float, begins: float) -> float:
    """Return the time of a probe's first success: its first period in which the server answers. Seconds since start."""
    first = max(float(probe.get("initialDelaySeconds", 0)), begins)
    period = float(probe["periodSeconds"])
    late = max(0.0, answers - first)
    periods = -(-late // period)
    needed = int(probe.get("successThreshold", 1)) - 1
    return first + (periods + needed) * period
