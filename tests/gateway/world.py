"""The gateway on a socket, Pods in memory, and raw connections: what went over the wire is what a test sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from sandboxes.access import tokens
from sandboxes.access.tokens import Subject
from sandboxes.deadlines import Deadlines
from sandboxes.gateway.interface import Candidate, Ground
from sandboxes.gateway.server import Gateway
from sandboxes.gateway_settings import GatewaySettings
from sandboxes.objects import KubeObject, pod_name
from sandboxes.tasks import Signal

PATIENCE = 20.0  # seconds for what must happen; a busy machine needs some of them
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FewKeys:
    def __init__(self) -> None:
        self.keys: list[bytes] = [b"k" * 32]

    def current(self) -> Sequence[bytes]:
        return self.keys


def ready_pod(ip: str | None, **spec: Any) -> KubeObject:
    status: KubeObject = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "sandbox", "ready": True, "state": {"running": {}}}],
    }
    if ip is not None:
        status["podIP"] = ip
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {}},
        "spec": {"nodeName": "n", "containers": [{"name": "sandbox"}], **spec},
        "status": status,
    }


def pending_pod(reason: str = "ContainerCreating", message: str | None = None) -> KubeObject:
    waiting = {"reason": reason, **({"message": message} if message else {})}
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {}},
        "spec": {"nodeName": "n", "containers": [{"name": "sandbox"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "sandbox", "state": {"waiting": waiting}}]},
    }


class FakePods:
    """What the live views would show."""

    def __init__(self) -> None:
        self.is_usable = True
        self.changed: Signal[[str]] = Signal()
        self.pods: dict[str, list[Candidate]] = {}
        self.uses: Counter[str] = Counter()
        self.dials: list[tuple[str, bool]] = []
        self.used = asyncio.Event()
        self.on_loopback = True

    def find(self, sandbox_id: str) -> Sequence[Candidate]:
        return self.pods.get(sandbox_id, ())

    def note_use(self, candidate: Candidate) -> None:
        self.uses[candidate.subject.sandbox_id] += 1
        self.used.set()

    def note_dial(self, candidate: Candidate, *, reached: bool) -> None:
        self.dials.append((candidate.subject.sandbox_id, reached))

    def put(
        self, sandbox_id: str, pod: KubeObject, port: int, *, uid: str = "u1", generation: str = "", cluster: str = ""
    ) -> Candidate:
        pod["metadata"] = {"name": pod_name(sandbox_id), "uid": uid, "labels": {}}
        one = Candidate(Subject(cluster, "ns", sandbox_id, uid, port, generation), pod, self.on_loopback)
        others = [other for other in self.find(sandbox_id) if other.subject.cluster != cluster]
        self.pods[sandbox_id] = [*others, one]
        self.changed.send(sandbox_id)
        return one

    def remove(self, sandbox_id: str) -> None:
        self.pods.pop(sandbox_id, None)
        self.changed.send(sandbox_id)


class Counts:
    """What the gateway counted."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.failures: Counter[str] = Counter()
        self.from_callers = self.from_sandboxes = self.open = self.dials = 0
        self.words: set[str] = set()

    def answered(self, kind: str, status: int) -> None:
        self.statuses[kind, status] += 1

    def moved(self, from_callers: int, from_sandboxes: int) -> None:
        self.from_callers += from_callers
        self.from_sandboxes += from_sandboxes

    def changed_open(self, by: int) -> None:
        self.open += by

    def dialled(self, seconds: float) -> None:
        assert seconds >= 0
        self.dials += 1

    def failed(self, kind: str) -> None:
        self.failures[kind] += 1


class Wire:
    """A raw connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """Read to the end of a head."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Read to the end of the connection; a cut connection raises ConnectionError."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def is_cut(self) -> bool:
        """Whether the connection ends by a reset."""
        try:
            await self.rest()
        except ConnectionError:
            return True
        return False

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


class World:
    """A gateway and its sandboxes. Ends all that it started."""

    def __init__(self, settings: GatewaySettings, deadlines: Deadlines, most: int | None = 1000) -> None:
        self.pods = FakePods()
        self.keys = FewKeys()
        self.counts = Counts()
        self.settings = settings
        self.ground = Ground(self.pods, self.keys, settings, self.counts, deadlines)
        self.gateway = Gateway(self.ground, most=most)
        self.port = 0
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        await self.gateway.start([listening])

    async def stop(self) -> None:
        await self._stack.aclose()  # callers first, so that the gateway waits for none
        await self.gateway.close()

    async def serve(self, serve: Serve, host: str = "127.0.0.1", port: int = 0) -> int:
        """Start a raw server as a sandbox; return its port."""
        writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers[writer] = asyncio.current_task()
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                del writers[writer]
                writer.close()

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = await asyncio.start_server(connected, host, port, family=family, limit=2**20)

        async def end() -> None:
            server.close()
            tasks = [task for task in writers.values() if task is not None]
            for writer in writers:
                writer.transport.abort()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=1)
                for task in late:
                    task.cancel()

        self._stack.push_async_callback(end)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def sandbox(self, serve: Serve, sandbox_id: str = "abc", host: str = "127.0.0.1", uid: str = "u1") -> str:
        """Start a raw server as a sandbox's; return the prefix of its URLs."""
        port = await self.serve(serve, host)
        return self.prefix(self.pods.put(sandbox_id, ready_pod(host), port, uid=uid))

    def prefix(self, candidate: Candidate, *, port: int | None = None, expires_at: int | None = None) -> str:
        token = tokens.mint(candidate.subject, self.keys, port=port, expires_at=expires_at)
        return f"/s/{candidate.subject.sandbox_id}/{token}"

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self._stack.callback(wire.close)
        return wire

    def callback(self, end: Callable[[], None]) -> None:
        """Call it at the end."""
        self._stack.callback(end)

    async def ask(self, request: bytes) -> bytes:
        """Send one request, and return all that comes until the gateway closes the connection."""
        wire = await self.connect()
        await wire.send(request)
        answer = await wire.rest()
        wire.close()
        return answer

    async def get(self, path: str, headers: str = "", method: str = "GET", host: str = "gw") -> tuple[int, bytes]:
        """Return the status and the rest of the response, its head included."""
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        answer = await self.ask(request.encode("latin-1"))
        return int(answer.split(b" ", 2)[1]), answer


class Recorder:
    """A sandbox that keeps what it got, and gives the same answer to each request."""

    def __init__(self, response: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.response = response
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await body_of(head, reader))
                writer.write(self.response)
                await writer.drain()
        finally:
            self.ended.set()

    @property
    def head(self) -> bytes:
        """The head of the only request."""
        (head,) = self.heads
        return head

    def lines(self) -> list[bytes]:
        return self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")

    def values(self, name: str) -> list[bytes]:
        """The values of a header of the only request."""
        pairs = [line.split(b": ", 1) for line in self.lines()[1:]]
        return [value for key, value in pairs if key.lower() == name.lower().encode()]


async def body_of(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a body, with the bytes of its chunks' framing."""
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            body += line + await reader.readexactly(size + 2)
            if size == 0:
                return body
    if b"content-length: " in lowered:
        return await reader.readexactly(int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return b""


def headers_of(answer: bytes, name: str) -> list[bytes]:
    """Return the values of a header of a response."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = [line.split(b": ", 1) for line in lines]
    return [value for key, value in pairs if key.lower() == name.lower().encode()]


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def detail(answer: bytes) -> str:
    assert headers_of(answer, "Content-Type") == [b"application/json"]
    said: str = json.loads(body(answer))["detail"]
    return said


@contextlib.asynccontextmanager
async def running(settings: GatewaySettings, deadlines: Deadlines, most: int | None = 1000) -> AsyncIterator[World]:
    world = World(settings, deadlines, most)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of this process."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
