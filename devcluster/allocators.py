"""Allocates cluster IPs, node ports, and addresses of Pods. Node ports are really bound on this machine.

Knows numbers and sockets, not Services.
"""

import logging
import secrets
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class RangeFullError(Exception):
    """Every value of the range is taken."""


class TakenError(Exception):
    """The requested value is taken, or not in the range."""


class NodePorts:
    """The node port range. An allocated port is bound on loopback but not listening, so connections are refused."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._free = set(ports)
        self._range = frozenset(self._free)
        self._reserved: dict[int, socket.socket | None] = {}

    def allocate(self, *, dry_run: bool = False) -> int:
        """Allocate a random free port, like Kubernetes. Raises RangeFullError.

        Skips ports that another program on this machine holds.
        """
        untried = set(self._free)
        while untried:
            port = secrets.choice(tuple(untried))
            if dry_run or self._reserve(port):
                return port
            untried.discard(port)
        raise RangeFullError

    def take(self, port: int, *, dry_run: bool = False) -> None:
        """Allocate this port. Raises TakenError."""
        if port not in self._free:
            raise TakenError
        if not dry_run and not self._reserve(port):
            raise TakenError

    def contains(self, port: int) -> bool:
        """Return whether the port is in the range."""
        return port in self._range

    def release(self, port: int) -> None:
        """Release a port."""
        held = self._reserved.pop(port, None)
        if held is not None:
            held.close()
        if port in self._range:
            self._free.add(port)

    def hand_over(self, port: int) -> socket.socket | None:
        """Return the bound socket for a listener; None if the port could not be bound again."""
        if self._reserved.get(port) is None and port in self._reserved:
            self._reserved[port] = bound(port)
        held = self._reserved.get(port)
        if held is not None:
            self._reserved[port] = None
        return held

    def take_back(self, port: int) -> None:
        """Bind an allocated port again after its listener has closed it."""
        if port in self._reserved:
            self._reserved[port] = bound(port)

    def close(self) -> None:
        """Release all ports."""
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
    """Return a socket bound to the port on loopback, or None if another program holds the port."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    try:
        made.bind((LOOPBACK, port))
    except OSError as error:
        log.info("node port %d is not available: %s", port, error)
        made.close()
        return None
    return made


class ClusterIPs:
    """The range of cluster IPs. Nothing routes them."""

    def __init__(self, network: str = "10.96.0.0/16") -> None:
        self._network = IPv4Network(network)
        self._taken: set[str] = {str(self._network[0]), str(self._network[1]), str(self._network[-1])}

    def allocate(self) -> str:
        """Return a random free address, without taking it. Raises RangeFullError."""
        if len(self._taken) >= self._network.num_addresses:
            raise RangeFullError
        while True:
            address = str(self._network[secrets.randbelow(self._network.num_addresses)])
            if address not in self._taken:
                return address

    def take(self, address: str) -> None:
        """Allocate this address. Raises TakenError."""
        if address in self._taken:
            raise TakenError
        self._taken.add(address)

    def release(self, address: str) -> None:
        """Release an address."""
        self._taken.discard(address)


def pod_addresses() -> Iterator[str]:
    """Yield addresses of loopback, each once; other clusters on this machine have others, as good as always."""
    block = (16 + secrets.randbelow(224), secrets.randbelow(256))
    number = 1
    while True:
        number += 1
        if number % 256 not in (0, 255):
            yield f"127.{block[0]}.{(block[1] + number // 256) % 256}.{number % 256}"
