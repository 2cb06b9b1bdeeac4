"""Addresses in a Pod's status that lead to the gateway's own machine, or to what a cloud keeps for it."""

from __future__ import annotations

import socket

import pytest

from sandboxes.access.addresses import is_local, problem_of
from tests.gateway.world import Recorder, World, detail, ready_pod


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.9.9.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%lo", "a link-local address"),
        ("0.0.0.0", "the unspecified address"),  # noqa: S104 - what a status says
        ("::", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "a broadcast address"),
        ("fd00:ec2::254", "the address of a cloud's metadata"),
        ("100.100.100.200", "the address of a cloud's metadata"),
    ],
)
async def test_an_address_that_no_pod_has_is_502_and_never_dialled(world: World, address: str, said: str) -> None:
    sandbox = Recorder()
    port = await world.serve(sandbox)
    world.pods.on_loopback = False
    candidate = world.pods.put("abc", ready_pod(address), port)
    status, answer = await world.get(f"{world.prefix(candidate)}/")
    assert (status, detail(answer)) == (
        502, f"The gateway does not dial the address of this sandbox's Pod: it is {said}",
    )  # fmt: skip
    assert (world.pods.dials, sandbox.connections) == ([], 0)
    assert world.counts.failures == {"not-dialled": 1}


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.0.9", "100.64.0.1", "172.17.0.2", "240.0.0.1", "8.8.8.8", "fd12::1"]
)
def test_whatever_clusters_give_to_pods_is_dialled(address: str) -> None:
    assert problem_of(address, may_be_loopback=False) is None


def _own_address() -> str | None:
    """Return an address of this machine other than loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return str(one.getsockname()[0])


@pytest.mark.skipif(_own_address() in {None, "127.0.0.1"}, reason="this machine has no address but loopback")
async def test_the_gateways_own_address_is_502_and_gets_no_request(world: World) -> None:
    address = _own_address()
    assert address is not None
    sandbox = Recorder()
    prefix = await world.sandbox(sandbox, host=address)
    status, answer = await world.get(f"{prefix}/")
    assert status == 502
    assert detail(answer).endswith("it is the gateway's own")
    assert sandbox.heads == []


@pytest.mark.parametrize(
    ("server", "is_so"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://localhost:6443/path", True),
        ("https://[::1]:6443", True),
        ("127.0.0.1:8443", True),
        ("https://10.96.0.1", False),
        ("https://kubernetes.default.svc", False),
        ("https://127.0.0.1.example.com", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_pods_may_be_on_loopback_only_where_the_api_server_is(server: str, is_so: bool) -> None:
    assert is_local(server) is is_so
