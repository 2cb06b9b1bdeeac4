"""How many connections of callers the gateway may have, by the limit on this process's descriptors."""

from __future__ import annotations

import resource
from typing import Protocol

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


class Idle(Protocol):
    """A connection of a caller that may be closed at once. `is_known`: it has had a request with a valid token."""

    is_known: bool

    def make_room(self) -> None:
        """Close the connection."""
        ...


class ClientLimit:
    """Counts the callers' connections. Past the bound, the one that has been idle for longest makes room.

    So connections without a request take none from callers with a token; among the idle ones, those go first that have
    shown none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        # By `is_known`: idle connections, the longest idle first.
        self._idle: dict[bool, dict[Idle, None]] = {False: {}, True: {}}
        self._leaving: set[Idle] = set()

    def add(self, client: Idle) -> bool:
        """Count one more, which is idle, and return whether it is one too many. That one does not make room."""
        self.open += 1
        if self.is_over:
            self._make_room()
        if not self.is_over:
            self.note_idle(client)
        return self.is_over

    def remove(self, client: Idle) -> None:
        """Count one less."""
        self.note_busy(client)
        if client in self._leaving:
            self._leaving.discard(client)
        else:
            self.open -= 1

    def note_idle(self, client: Idle) -> None:
        """Note that the connection has no request under way."""
        if client not in self._leaving:
            self._idle[client.is_known][client] = None

    def note_busy(self, client: Idle) -> None:
        """Note that the connection has a request."""
        for some in self._idle.values():
            some.pop(client, None)

    @property
    def is_over(self) -> bool:
        """Whether there are more than there may be."""
        return self.open > self.most

    @property
    def is_far_over(self) -> bool:
        """Whether there is not even a descriptor for an answer that says so."""
        return self.open > self.most + SURPLUS

    def _make_room(self) -> None:
        for some in self._idle.values():
            if some:
                client = next(iter(some))
                del some[client]
                self._leaving.add(client)
                self.open -= 1
                client.make_room()
                return
