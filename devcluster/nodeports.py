"""Acts as kube-proxy: a node port answers while its Service has an endpoint.

Each node port is a real TCP port on loopback. A few lines of HTTP answer instead of a container.
"""

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress

from aiohttp import web

from devcluster import services
from devcluster.allocators import NodePorts
from devcluster.kubelet import Kubelet
from devcluster.objects import Json, labels_of, name_of, namespace_of
from devcluster.resources import PODS, SERVICES
from devcluster.store import Change, Store

log = logging.getLogger(__name__)

Key = tuple[str, str]
SANDBOX_PATH = "/v1/sandbox"


class NodePortProxy:
    """Opens and closes node ports when Pods and Services change, one Service at a time."""

    def __init__(self, store: Store, kubelet: Kubelet, ports: NodePorts) -> None:
        self._store = store
        self._kubelet = kubelet
        self._ports = ports
        self._by_selector: dict[tuple[str, str, str], set[Key]] = defaultdict(set)
        self._pods = _LabelIndex()
        self._listening: dict[int, asyncio.Server] = {}
        self._open: dict[Key, set[int]] = defaultdict(set)
        self._dirty: dict[Key, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._http = web.Server(answer)
        store.subscribe(self._on_change)
        kubelet.on_serving(self._on_pod)

    async def start(self) -> None:
        """Start to follow changes."""
        self._task = asyncio.create_task(self._follow(), name="devcluster node ports")

    async def stop(self) -> None:
        """Close every port."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task  # raises if the task has failed
        for server in self._listening.values():
            server.close()
        self._listening.clear()
        await asyncio.sleep(0)  # lets accepted sockets become connections, which can be closed
        await self._http.shutdown(0)

    def _on_change(self, change: Change) -> None:
        if change.resource is SERVICES:
            key = (namespace_of(change.obj), name_of(change.obj))
            for obj in (change.previous.obj if change.previous else None, change.obj):
                if obj is not None:
                    self._index(key, obj, present=obj is change.obj and change.type != "DELETED")
            self._mark(key)
        elif change.resource is PODS:
            key = (namespace_of(change.obj), name_of(change.obj))
            self._pods.note(key, {} if change.type == "DELETED" else labels_of(change.obj))
            self._on_labels(change.obj)

    def _index(self, key: Key, service: Json, *, present: bool) -> None:
        selector = service["spec"].get("selector") or {}
        if not selector:
            return
        first = min(selector.items())
        keys = self._by_selector[(key[0], *first)]
        if present:
            keys.add(key)
            return
        keys.discard(key)
        if not keys:
            del self._by_selector[(key[0], *first)]

    def _on_pod(self, key: Key) -> None:
        record = self._store.get(PODS, *key)
        if record is not None:
            self._on_labels(record.obj)

    def _on_labels(self, pod: Json) -> None:
        for label in labels_of(pod).items():
            for key in self._by_selector.get((namespace_of(pod), *label), ()):
                self._mark(key)

    def _mark(self, key: Key) -> None:
        self._dirty[key] = None
        self._wake.set()

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                key = next(iter(self._dirty))
                del self._dirty[key]
                await self._reconcile(key)

    async def _reconcile(self, key: Key) -> None:
        """Open and close the ports of one Service as needed."""
        record = self._store.get(SERVICES, *key)
        wanted = set(services.node_ports(record.obj)) if record is not None else set()
        if record is not None and not self._has_endpoint(record.obj):
            wanted.clear()
        for port in self._open[key] - wanted:
            self._close(port)
        for port in wanted - self._open[key]:
            await self._listen(port)
        self._open[key] = wanted
        if not wanted:
            del self._open[key]

    def _has_endpoint(self, service: Json) -> bool:
        """Return whether a matching Pod serves, and is ready unless publishNotReadyAddresses is set."""
        spec = service["spec"]
        selector: dict[str, str] = spec.get("selector") or {}
        for key in self._pods.matching(namespace_of(service), selector):
            record = self._store.get(PODS, *key)
            if record is None or not self._kubelet.is_serving(key):
                continue
            if spec.get("publishNotReadyAddresses") or _is_ready(record.obj):
                return True
        return False

    async def _listen(self, port: int) -> None:
        held = self._ports.hand_over(port)
        if held is None:
            log.warning("node port %d can't be opened: something else holds it", port)
            return
        loop = asyncio.get_running_loop()
        # Register it before starting it, so that a `stop` in between closes it.
        self._listening[port] = await loop.create_server(self._http, sock=held, start_serving=False)
        try:
            await self._listening[port].start_serving()
        except OSError as error:
            # Another cluster on this machine bound the same port and listens already: both sockets may share it.
            log.warning("node port %d can't be opened: %s", port, error)
            self._close(port)

    def _close(self, port: int) -> None:
        server = self._listening.pop(port, None)
        if server is not None:
            server.close()
            self._ports.take_back(port)


class _LabelIndex:
    """An index of Pods by label, so that a Service need not scan all Pods."""

    def __init__(self) -> None:
        self._labels: dict[Key, dict[str, str]] = {}
        self._pods: dict[tuple[str, str, str], set[Key]] = defaultdict(set)

    def note(self, key: Key, labels: dict[str, str]) -> None:
        """Store the labels of a Pod; no labels removes it."""
        before = self._labels.pop(key, {})
        for item in before.items() - labels.items():
            self._pods[(key[0], *item)].discard(key)
            if not self._pods[(key[0], *item)]:
                del self._pods[(key[0], *item)]
        for item in labels.items() - before.items():
            self._pods[(key[0], *item)].add(key)
        if labels:
            self._labels[key] = labels

    def matching(self, namespace: str, selector: dict[str, str]) -> set[Key]:
        """Return the Pods with all of these labels; none for an empty selector."""
        groups = [self._pods.get((namespace, *item), set()) for item in selector.items()]
        return set.intersection(*groups) if groups else set()


def _is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """Answer the readiness path of a sandbox; 404 for any other."""
    if request.path != SANDBOX_PATH:
        response = web.json_response({"detail": "Not Found"}, status=404)
    else:
        response = web.json_response({"status": "ok", "detail": "a stand-in for development: nothing runs here"})
    response.force_close()
    return response
