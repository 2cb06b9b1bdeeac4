"""The addresses that the service and its gateway listen on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sandboxes.errors import StartupError
from sandboxes.grammar import is_ip_address

LISTEN_HOST = "LISTEN_HOST"
LISTEN_PORT = "LISTEN_PORT"

# All addresses of the machine, by family, and its loopback addresses.
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - callers decide
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Hosts and port to listen on. `host_variable`, `port_variable`: the variables they were read from."""

    hosts: tuple[str, ...]
    port: int
    host_variable: str = LISTEN_HOST
    port_variable: str = LISTEN_PORT

    def __str__(self) -> str:
        """Return HOST:PORT of each host, separated by commas."""
        return ", ".join(authority(host, self.port) for host in self.hosts)


def authority(host: str, port: int) -> str:
    """Return HOST:PORT as in a URL: an IPv6 address in brackets (RFC 3986)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_address(address: Address) -> None:
    """Raise StartupError unless each host is an IP address or `localhost`.

    conda and tcsh set HOST to the machine's name, which may resolve to an address that the network can reach.
    """
    for host in address.hosts:
        if not is_ip_address(host) and host != "localhost":
            raise StartupError(
                f"{address.host_variable} holds {host!r}, which is neither an IP address nor `localhost`. Without "
                f"an API key it must be one of those: set {LISTEN_HOST}."
            )
