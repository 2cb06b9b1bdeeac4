"""How many connections of callers the gateway may have, by the limit on this process's descriptors."""

from __future__ import annotations

import resource

# For kubectl, the API, its callers, and idle connections.
RESERVED = 256
# Of a connection: the caller's and the sandbox's.
PER_CONNECTION = 2
# Past the bound, so many connections are answered by 503; further ones are cut.
SURPLUS = 64

_LEAST, _MOST = 16, 100_000


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one. The soft one is often 1024, for programs that use select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        # macOS allows less than its hard limit, which is infinite. The bound below is that of the soft one then.
        return


def most_clients() -> int:
    """Return how many connections of callers fit into the soft limit on descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_LEAST, min(_MOST, (soft - RESERVED) // PER_CONNECTION))


class ClientLimit:
    """Counts the callers' connections."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0

    def add(self) -> bool:
        """Count one more, and return whether it is one too many."""
        self.open += 1
        return self.open > self.most

    def remove(self) -> None:
        """Count one less."""
        self.open -= 1

    @property
    def is_far_over(self) -> bool:
        """Whether there is not even a descriptor for an answer that says so."""
        return self.open > self.most + SURPLUS
