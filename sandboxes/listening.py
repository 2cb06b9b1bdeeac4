"""Where the service listens, and which variables say so: LISTEN_HOST and LISTEN_PORT, else HOST and PORT. Pure.

HOST and PORT have other meanings elsewhere: conda and tcsh set HOST, and PORT in a `.env` may be another program's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.errors import StartupError
from sandboxes.hosts import is_ip_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LISTEN_HOST = "LISTEN_HOST"
LISTEN_PORT = "LISTEN_PORT"

# Read where the first one is unset or empty.
FALLBACKS = {LISTEN_HOST: "HOST", LISTEN_PORT: "PORT"}


@dataclass(frozen=True)
class Address:
    """Where to listen. `host_variable`, `port_variable`: what the operator would change."""

    host: str
    port: int
    host_variable: str = LISTEN_HOST
    port_variable: str = LISTEN_PORT


def check_address(address: Address) -> None:
    """Raise StartupError if the host is a name of which the operator can't see who reaches it.

    HOST of conda or tcsh is such a name, and resolves to an address of the network on some machines.
    """
    if not is_ip_address(address.host) and address.host != "localhost":
        raise StartupError(
            f"{address.host_variable} holds {address.host!r}, which is neither an IP address nor `localhost`. Without "
            f"an API key it must be one of those: set {LISTEN_HOST}."
        )


def used_variable(variable: str, environ: Mapping[str, str]) -> str:
    """Return the variable that is read: the fallback where only that one has a value, else `variable`."""
    fallback = FALLBACKS.get(variable, variable)
    return fallback if environ.get(fallback) and not environ.get(variable) else variable


def ignored_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each fallback that holds something else than the variable that wins over it."""
    for variable, fallback in FALLBACKS.items():
        value, other = environ.get(variable), environ.get(fallback)
        if value and other and value != other:
            yield f"{fallback} is ignored: {variable} wins over it, and holds {value!r}."
