"""Answers at the Pods' own addresses, in place of their containers' servers.

Each address is one of loopback, 127.x.y.z, so that it can be dialled from this machine; not on systems whose loopback
has one address only, such as macOS.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from devcluster.kubelet import Kubelet
from devcluster.nodeports import Key, answer
from devcluster.objects import Json

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class PodServers:
    """Listens on the TCP ports that the containers of a Pod declare, while its server is up.

    `handler`: answers there; it may be replaced at any time.
    """

    def __init__(self, kubelet: Kubelet) -> None:
        self.handler: Handler = answer
        self._kubelet = kubelet
        self._running: dict[Key, tuple[list[asyncio.Server], web.Server]] = {}
        self._dirty: asyncio.Queue[Key] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        kubelet.on_serving(self._dirty.put_nowait)

    async def start(self) -> None:
        """Start to follow the Pods."""
        self._task = asyncio.create_task(self._follow(), name="devcluster Pods' servers")

    async def stop(self) -> None:
        """Close every server."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task  # raises if the task has failed
        for key in list(self._running):
            await self._close(key)

    async def _follow(self) -> None:
        while True:
            key = await self._dirty.get()
            is_serving = self._kubelet.is_serving(key)
            if is_serving and key not in self._running:
                await self._open(key)
            elif not is_serving and key in self._running:
                await self._close(key)

    async def _open(self, key: Key) -> None:
        state = self._kubelet.state_of(key)
        if state is None or not state.address:
            return
        http = web.Server(self._answer)
        servers = []
        for port in _ports(self._kubelet.pod_of(key)):
            try:
                servers.append(await asyncio.get_running_loop().create_server(http, state.address, port))
            except OSError as error:
                log.warning("%s:%d can't be opened: %s", state.address, port, error)
        self._running[key] = (servers, http)

    async def _close(self, key: Key) -> None:
        servers, http = self._running.pop(key)
        for server in servers:
            server.close()
        await asyncio.sleep(0)  # lets accepted sockets become connections, which can be closed
        await http.shutdown(0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.handler(request)


def _ports(pod: Json) -> set[int]:
    return {
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP"
    }
