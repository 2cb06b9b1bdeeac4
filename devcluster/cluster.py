"""The whole stand-in as one object, for tests: starts and stops all components."""

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from aiohttp import web

from devcluster import credentials
from devcluster.allocators import LOOPBACK, ClusterIPs, NodePorts
from devcluster.api import Api, WriteOptions
from devcluster.authorization import Authorization
from devcluster.clock import Clock
from devcluster.deletion import Deletion
from devcluster.faults import Faults
from devcluster.kinds import strategies
from devcluster.kubelet import Kubelet
from devcluster.listing import Listing
from devcluster.logs import Logs
from devcluster.namespaces import NamespaceController
from devcluster.node import Folders
from devcluster.nodeports import NodePortProxy
from devcluster.objects import Json, clone
from devcluster.openapi import OpenApi
from devcluster.podservers import Handler, PodServers
from devcluster.podstates import Words, put_in_words, put_into
from devcluster.port import Port
from devcluster.resources import BY_KIND, NAMESPACES, STORAGE_CLASSES
from devcluster.schema import Schema
from devcluster.server import ApiServer
from devcluster.store import Store
from devcluster.timing import Timing
from devcluster.volumes import ClaimController
from devcluster.watches import Watches

FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
NODE_PORTS = range(30000, 32768)
# Most clusters have one, and claims rely on it.
_STORAGE_CLASS = {
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "devcluster/volumes",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}
_BOUND_AFTER = 0.2
_SHUTDOWN_SECONDS = 1.0


class Cluster:
    """A stand-in for a cluster, which runs inside an `async with`.

    `kmock` is the handler: `cluster.kmock["get /version"] << 503` answers all matching requests, and
    `cluster.kmock.requests` are the last requests. Their number is bounded, so for "only the next one" use
    `devcluster.once`, not a slice of the history. `faults` injects failures; see there.

    Delays are in seconds of cluster time, which runs `speed` times as fast as the wall clock. Clients measure how long
    a watch lasts, so its `timeoutSeconds` and bookmarks run `watch_speed` times as fast instead. Without `watch_list`,
    `sendInitialEvents` is not supported, as on servers before 1.32 and of 1.33.

    `node_folders` are all folders that the node has, by path; with None, it and the claims have any. See `node`.

    With `pod_servers`, a Pod answers at its own address, too; see `podservers`, and `pods_answer_by`.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each thing that a test may set
        self,
        port: int = 0,
        directory: Path | None = None,
        node_port_range: Iterable[int] = NODE_PORTS,
        *,
        ready_after: float = 0.3,
        start_after: float = 0.1,
        service_account_after: float = 0.3,
        tls: bool = True,
        speed: float = 1.0,
        watch_speed: float = 1.0,
        watch_list: bool = True,
        node_folders: Iterable[str] | None = None,
        pod_servers: bool = False,
    ) -> None:
        self._port = port
        self._directory = directory
        self._node_port_range = node_port_range
        self._timing = Timing(start_after=start_after, ready_after=ready_after)
        self._service_account_after = service_account_after
        self._tls = tls
        self._clock = Clock(speed)
        self._watch_clock = Clock(watch_speed)
        self._watch_list = watch_list
        self._folders = Folders(node_folders)
        self._has_pod_servers = pod_servers
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The server's URL, as in the kubeconfig."""
        return self._url

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file; its context is `devcluster`."""
        return self._kubeconfig

    @property
    def ca_file(self) -> Path:
        """The file of the CA certificate; it does not exist without TLS."""
        return self._credentials.ca_file

    @property
    def token(self) -> str:
        """The bearer token; empty without TLS."""
        return self._credentials.token

    @property
    def kmock(self) -> ApiServer:
        """The request handler."""
        return self._server

    def objects(self, kind: str, namespace: str | None = None) -> list[Json]:
        """Return copies of all objects of a kind (`Pod`), of one namespace or of all."""
        return [clone(record.obj) for record in self._store.find(BY_KIND[kind], namespace or "")]

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return a copy of one object, or None."""
        record = self._store.get(BY_KIND[kind], namespace, name)
        return None if record is None else clone(record.obj)

    @property
    def authorization(self) -> Authorization:
        """The user's rights: all, until a test restricts them."""
        return self._server.authorization

    @property
    def faults(self) -> Faults:
        """The failures that a test can inject."""
        return self._faults

    def make_namespace(self, name: str) -> None:
        """Make a namespace with its service account, unless it is there, as if long ago and without a request."""
        if self._store.get(NAMESPACES, "", name) is None:
            self._api.create(NAMESPACES, "", {"metadata": {"name": name}}, WriteOptions("kube-apiserver"))
            self._namespaces.furnish(name)

    def put_pod_into(self, namespace: str, name: str, *states: str) -> None:
        """Put a Pod into recorded states in turn; it stays in the last one. See `podstates.STATES`."""
        for state in states:
            put_into(self._kubelet, (namespace, name), state)

    def set_pod(self, namespace: str, name: str, **state: Unpack[Words]) -> None:
        """Put a Pod into a described state, in which it stays; see `podstates.Words`."""
        put_in_words(self._kubelet, (namespace, name), state)

    def pods_answer_by(self, handler: Handler) -> None:
        """Let this handler answer at the addresses of all Pods from now on. Needs `pod_servers`."""
        self._pod_servers.handler = handler

    def set_pod_address(self, namespace: str, name: str, address: str) -> None:
        """Report another address of a Pod. Raises KeyError if the Pod has no node."""
        state = self._kubelet.state_of((namespace, name))
        if state is None:
            raise KeyError(f"no Pod {name} in {namespace} on the node")
        state.address = address
        self._kubelet.publish((namespace, name))

    def set_log(self, namespace: str, name: str, text: str) -> None:
        """Set the log that each run of a Pod's containers writes. Raises KeyError if the Pod has no node."""
        state = self._kubelet.state_of((namespace, name))
        if state is None:
            raise KeyError(f"no Pod {name} in {namespace} on the node")
        for container in state.containers:
            container.log = text

    def make_folder(self, path: str) -> None:
        """Make a folder of the node; a Pod that needs it finds it when its volumes are mounted again."""
        self._folders.make(path)

    def server_takes(self, seconds: float, image: str = "") -> None:
        """Set the seconds from a container's start to its server's first answer, for all new Pods or for an image."""
        if image:
            self._timing.by_image[image] = seconds
        else:
            self._timing.server_takes = seconds

    def stopping_takes(self, seconds: float) -> None:
        """Set the seconds that containers take to end, at most their grace period."""
        self._timing.stop_takes = seconds

    def forget_changes(self, kind: str) -> None:
        """Make all resource versions up to now too old to watch from, like compaction: 410 Expired."""
        self._store.forget(BY_KIND[kind])

    def end_watches(self) -> None:
        """End all open watches cleanly, as a server does from time to time."""
        self._watches.end()

    def open_watches(self, kind: str = "") -> int:
        """Return the number of open watches, of a kind (`Pod`) or of all. An open watch misses no change."""
        return len(self._watches.open(BY_KIND[kind].plural if kind else ""))

    def send_bookmarks(self, kind: str = "") -> None:
        """Send a bookmark now to the open watches that requested them, of a kind (`Pod`) or of all."""
        for watch in self._watches.open(BY_KIND[kind].plural if kind else ""):
            watch.bookmark()

    async def _start(self, stack: AsyncExitStack) -> None:
        directory = self._directory or Path(tempfile.mkdtemp(prefix="devcluster-"))
        if self._directory is None:
            stack.callback(shutil.rmtree, directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._credentials = credentials.make(directory, tls=self._tls)
        await self._start_controllers(stack)
        self._serve(stack)
        self._kubeconfig = directory / "kubeconfig"
        stack.callback(self._kubeconfig.unlink, missing_ok=True)
        if self._tls:
            stack.callback(self.ca_file.unlink, missing_ok=True)
        credentials.write_kubeconfig(self._kubeconfig, self._url, self._credentials)

    async def _start_controllers(self, stack: AsyncExitStack) -> None:
        schema = Schema.load()
        node_ports = NodePorts(self._node_port_range)
        stack.callback(node_ports.close)
        stack.callback(self._clock.stop)
        stack.callback(self._watch_clock.stop)
        self._store = Store()
        api = Api(self._store, schema, strategies(ClusterIPs(), node_ports))
        deletion = Deletion(api)
        self._api = api
        self._namespaces = NamespaceController(api, deletion, self._clock, self._service_account_after)
        ClaimController(api, self._clock, _BOUND_AFTER)
        self._kubelet = Kubelet(api, deletion, self._clock, self._timing, self._folders)
        proxy = NodePortProxy(self._store, self._kubelet, node_ports)
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        self._pod_servers = PodServers(self._kubelet)
        if self._has_pod_servers:
            await self._pod_servers.start()
            stack.push_async_callback(self._pod_servers.stop)
        self._watches = Watches(self._store, self._watch_clock, watch_list=self._watch_list)
        self._server = ApiServer(
            api,
            deletion,
            Listing(self._store),
            self._watches,
            Logs(self._store, self._kubelet),
            OpenApi(schema),
            self._credentials.token,
        )
        await stack.enter_async_context(self._server)
        for name in FIRST_NAMESPACES:
            self.make_namespace(name)
        api.create(STORAGE_CLASSES, "", _STORAGE_CLASS, WriteOptions("kube-apiserver"))

    def _serve(self, stack: AsyncExitStack) -> None:
        server = web.Server(self._server, handler_cancellation=True)
        port = Port(server, self._port, self._credentials.context)
        stack.push_async_callback(port.shutdown, _SHUTDOWN_SECONDS)
        stack.callback(self._watches.stop)
        stack.callback(port.stop)
        self._faults = Faults(self._server.rules, port, self._watches)
        stack.callback(self._server.rules.clear)
        port.open()
        self._url = f"{'https' if self._tls else 'http'}://{LOOPBACK}:{port.number}"
