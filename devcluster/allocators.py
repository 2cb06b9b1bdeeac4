"""What Services are given out of ranges: cluster IPs, and node ports, which are taken on this machine for real.

Knows numbers and sockets, not Services.
"""

import logging
import secrets
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class RangeFullError(Exception):
    """Every value of the range is taken."""


class TakenError(Exception):
    """The value that was asked for is taken, or not in the range."""


class NodePorts:
    """The node port range. An allocated port is bound on loopback, not listening: connecting to it is refused."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._free = set(ports)
        self._range = frozenset(self._free)
        self._reserved: dict[int, socket.socket | None] = {}

    def allocate(self, *, dry_run: bool = False) -> int:
        """Give a free port, at random as Kubernetes does. Raises RangeFullError.

        One that something else on this machine holds is passed over.
        """
        untried = set(self._free)
        while untried:
            port = secrets.choice(tuple(untried))
            if dry_run or self._reserve(port):
                return port
            untried.discard(port)
        raise RangeFullError

    def take(self, port: int, *, dry_run: bool = False) -> None:
        """Take a certain port. Raises TakenError."""
        if port not in self._free:
            raise TakenError
        if not dry_run and not self._reserve(port):
            raise TakenError

    def contains(self, port: int) -> bool:
        """Tell whether the port lies in the range."""
        return port in self._range

    def release(self, port: int) -> None:
        """Give a port back."""
        held = self._reserved.pop(port, None)
        if held is not None:
            held.close()
        if port in self._range:
            self._free.add(port)

    def hand_over(self, port: int) -> socket.socket | None:
        """Give the bound socket to whoever will listen on it; None when the port could not be bound again."""
        if self._reserved.get(port) is None and port in self._reserved:
            self._reserved[port] = bound(port)
        held = self._reserved.get(port)
        if held is not None:
            self._reserved[port] = None
        return held

    def take_back(self, port: int) -> None:
        """Bind an allocated port again after the one who listened has closed it."""
        if port in self._reserved:
            self._reserved[port] = bound(port)

    def close(self) -> None:
        """Let go of every port."""
        for held in self._reserved.values():
            if held is not None:
                held.close()
        self._reserved.clear()

    def _reserve(self, port: int) -> bool:
        held = bound(port)
        if held is None:
            return False
        self._reserved[port] = held
        self._free.discard(port)
        return True


def bound(port: int) -> socket.socket | None:
    """Give a socket that is bound to the port on loopback, or None when something else holds it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    try:
        made.bind((LOOPBACK, port))
    except OSError as error:
        log.info("node port %d is not to be had: %s", port, error)
        made.close()
        return None
    return made


class ClusterIPs:
    """The range that Services get their cluster IPs from. They lead nowhere: nothing routes them."""

    def __init__(self, network: str = "10.96.0.0/16") -> None:
        self._network = IPv4Network(network)
        self._taken: set[str] = {str(self._network[0]), str(self._network[1]), str(self._network[-1])}

    def allocate(self) -> str:
        """Give a free address. Raises RangeFullError."""
        if len(self._taken) >= self._network.num_addresses:
            raise RangeFullError
        while True:
            address = str(self._network[secrets.randbelow(self._network.num_addresses)])
            if address not in self._taken:
                return address

    def take(self, address: str) -> None:
        """Take a certain address. Raises TakenError."""
        if address in self._taken:
            raise TakenError
        self._taken.add(address)

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(address)
