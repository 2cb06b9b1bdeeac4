"""Which addresses the gateway dials as a Pod's. Pure.

The address of a Pod is from its status, which its kubelet writes, and whoever may patch `pods/status`. So it must not
lead to the gateway's own machine, such as to the API beside it, nor to what a cloud keeps for that machine.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

# Where clouds answer a machine's questions about itself, other than link-local.
METADATA = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # AWS: Instance metadata service, IPv6 endpoint
            "fd20:ce::254",  # Google Cloud: metadata server, IPv6
            "168.63.129.16",  # Azure: WireServer
            "100.100.100.200",  # Alibaba Cloud: instance metadata
            "192.0.0.192",  # Oracle Cloud: former metadata address
        ),
    )
)


def problem_of(address: str, *, may_be_loopback: bool) -> str | None:
    """Return what an address is that no Pod has, as the end of a sentence; None for one that is dialled.

    `may_be_loopback`: see is_local. Raises ValueError for what is no address.
    """
    given = ip_address(address)
    real = _inner(given)
    if real.is_loopback:
        return None if may_be_loopback else "it is a loopback address"
    kinds = {
        "it is a link-local address": real.is_link_local,
        "it is the unspecified address": real.is_unspecified,
        "it is a multicast address": real.is_multicast,
        "it is the address of a cloud's metadata": real in METADATA,
        "it is a broadcast address": real == IPv4Address(0xFFFFFFFF),
    }
    return next((said for said, holds in kinds.items() if holds), None)


def is_local(server: str) -> bool:
    """Whether an API server's address, with or without a scheme, is a loopback address.

    Then its Pods may be on this machine's loopback, too, as those of a stand-in for a cluster are.
    """
    try:
        host = urlsplit(server if "://" in server else f"//{server}").hostname or ""
        return host == "localhost" or _inner(ip_address(host)).is_loopback
    except ValueError:
        return False


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that the kernel dials for an IPv6 one that has it inside."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
