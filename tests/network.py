"""A network that has no way to some addresses, as tests can't find one on every machine."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest


@pytest.fixture
async def unreachable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Addresses to which the network has no way."""
    hosts: set[str] = set()
    loop_class = type(asyncio.get_running_loop())
    connect = loop_class.sock_connect

    async def sock_connect(self: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] in hosts:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        await connect(self, sock, address)

    monkeypatch.setattr(loop_class, "sock_connect", sock_connect)
    return hosts
