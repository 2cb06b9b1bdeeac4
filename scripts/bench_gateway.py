"""Measures the gateway against dialling a sandbox directly: the same callers, a small server beside it, in turns.

Each of the server, the gateway and the callers is a process of its own, as they are deployed. A figure is the median
over the rounds, and `share` is that of direct. The callers need about as much time as the server, so that two cores
measure mostly what the gateway adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

if not __package__:  # run by its path: import from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sandboxes.access import tokens
from sandboxes.access.tokens import Subject
from sandboxes.deadlines import DEADLINES
from sandboxes.gateway.interface import Candidate, Ground
from sandboxes.gateway.server import Gateway
from sandboxes.gateway_settings import GatewaySettings
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.objects import KubeObject

MEGABYTE = 10**6
CHUNK = bytes(64 * 1024)
Measure = Callable[[str, float], Awaitable[float]]


class _Keys:
    def current(self) -> Sequence[bytes]:
        return (b"k" * 32,)


class _Metrics:
    def answered(self, kind: str, status: int) -> None: ...
    def moved(self, from_callers: int, from_sandboxes: int) -> None: ...
    def changed_open(self, by: int) -> None: ...
    def dialled(self, seconds: float) -> None: ...
    def failed(self, kind: str) -> None: ...


class _Pods:
    """One sandbox, on this machine."""

    def __init__(self, port: int) -> None:
        self.is_usable = True
        self.changed: Signal[[str]] = Signal()
        pod: KubeObject = {
            "kind": "Pod",
            "metadata": {"name": "sandbox-bench", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "sandbox"}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        self._found = (Candidate(Subject("", "ns", "bench", "u", port, ""), pod),)

    @property
    def prefix(self) -> str:
        return f"/s/bench/{tokens.mint(self._found[0].subject, _Keys())}"

    def find(self, sandbox_id: str) -> Sequence[Candidate]:
        return self._found if sandbox_id == "bench" else ()

    def note_use(self, candidate: Candidate) -> None: ...

    def note_dial(self, candidate: Candidate, *, reached: bool) -> None: ...


async def _small(_: web.Request) -> web.Response:
    return web.Response(body=b'{"ok": true}', content_type="application/json")


async def _download(request: web.Request) -> web.StreamResponse:
    left = int(request.query["bytes"])
    response = web.StreamResponse(headers={"Content-Length": str(left)})
    await response.prepare(request)
    while left > 0:
        await response.write(CHUNK[:left])
        left -= len(CHUNK)
    return response


async def _upload(request: web.Request) -> web.Response:
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return web.Response(text=str(size))


async def _echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


def _serve_sandbox(listening: socket.socket) -> None:
    async def main() -> None:
        app = web.Application()
        app.add_routes([web.get("/small", _small), web.get("/down", _download)])
        app.add_routes([web.put("/up", _upload), web.get("/ws", _echo)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        await asyncio.Event().wait()

    asyncio.run(main())


def _serve_gateway(listening: socket.socket, port: int, profile: str | None) -> None:
    async def main() -> None:
        settings = GatewaySettings().model_copy(update={"sandbox_gateway_max_connections": 100_000})
        gateway = Gateway(Ground(_Pods(port), _Keys(), settings, _Metrics(), DEADLINES))
        await gateway.start([listening])
        await asyncio.Event().wait()

    if profile is None:
        asyncio.run(main())
        return
    import cProfile  # noqa: PLC0415 - only for a look at hot spots
    import signal  # noqa: PLC0415 - only for a look at hot spots

    one = cProfile.Profile()

    def stop(*_: object) -> None:
        one.dump_stats(profile)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    one.runcall(asyncio.run, main())


async def requests(url: str, seconds: float, callers: int = 20) -> float:
    """Return the requests per second of so many callers."""
    done = 0
    until = time.perf_counter() + seconds

    async def call(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < until:
            async with session.get(f"{url}/small") as response:
                await response.read()
                response.raise_for_status()
            done += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(call(session) for _ in range(callers)))
    return done / seconds


async def alone(url: str, seconds: float) -> float:
    """Return the median time of a request of one caller, in ms."""
    times: list[float] = []
    async with aiohttp.ClientSession() as session:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            async with session.get(f"{url}/small") as response:
                await response.read()
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def down(url: str, seconds: float) -> float:  # noqa: ARG001 - as long as it takes
    """Return MB/s of a download."""
    size = 500 * MEGABYTE
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        got = 0
        async with session.get(f"{url}/down?bytes={size}") as response:
            async for chunk in response.content.iter_any():
                got += len(chunk)
        assert got == size  # noqa: S101 - a measurement of less is none
    return size / MEGABYTE / (time.perf_counter() - began)


async def up(url: str, seconds: float) -> float:  # noqa: ARG001 - as long as it takes
    """Return MB/s of an upload."""
    count = 500 * MEGABYTE // len(CHUNK)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield CHUNK

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        headers = {"Content-Length": str(count * len(CHUNK))}
        async with session.put(f"{url}/up", data=chunks(), headers=headers) as response:
            assert int(await response.text()) == count * len(CHUNK)  # noqa: S101 - a measurement of less is none
    return count * len(CHUNK) / MEGABYTE / (time.perf_counter() - began)


async def messages(url: str, seconds: float) -> float:
    """Return the WebSocket messages per second, there and back, of 20 callers."""
    done = 0
    until = time.perf_counter() + seconds

    async def call(session: aiohttp.ClientSession) -> None:
        nonlocal done
        async with session.ws_connect(f"{url}/ws") as ws:
            while time.perf_counter() < until:
                await ws.send_str("a message of some forty characters, echoed")
                await ws.receive_str()
                done += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(call(session) for _ in range(20)))
    return done / seconds


MEASURES: dict[str, Measure] = {
    "requests/s, 20 callers": requests,
    "alone, p50 ms": alone,
    "down, MB/s": down,
    "up, MB/s": up,
    "messages/s, 20 callers": messages,
}


def memory(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


async def idle(url: str, count: int, pid: int) -> float:
    """Return the MB that so many idle WebSockets take."""
    before = memory(pid)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = [await session.ws_connect(f"{url}/ws") for _ in range(count)]
        took = memory(pid) - before
        await asyncio.gather(*(one.close() for one in sockets))
    return took


async def measure(direct: str, through: str, rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Return, for each measure, the medians of direct and through the gateway."""
    found: dict[str, tuple[float, float]] = {}
    for name, one in MEASURES.items():
        pairs = [(await one(direct, seconds), await one(through, seconds)) for _ in range(rounds)]
        found[name] = (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
    return found


def say(name: str, **figures: float) -> None:
    """Write a line of results."""
    sys.stdout.write(json.dumps({"measure": name, **figures}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the processes and print a line for each measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round's part")
    parser.add_argument("--idle", type=int, default=1000, help="WebSockets whose memory is measured; 0: none")
    parser.add_argument("--only", help="measures whose name begins with this")
    parser.add_argument("--profile", help="write the gateway's profile to this file")
    options = parser.parse_args()
    processes = multiprocessing.get_context("fork")
    sandbox, gateway = (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2))
    ports = [one.getsockname()[1] for one in (sandbox, gateway)]
    workers = [
        processes.Process(target=_serve_sandbox, args=(sandbox,), daemon=True),
        processes.Process(target=_serve_gateway, args=(gateway, ports[0], options.profile), daemon=True),
    ]
    for worker in workers:
        worker.start()
    direct, through = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}{_Pods(ports[0]).prefix}"
    for name in list(MEASURES):
        if options.only and not name.startswith(options.only):
            del MEASURES[name]
    pid = workers[1].pid or 0
    asyncio.run(requests(through, 0.5))
    before = memory(pid)
    for name, (a, b) in asyncio.run(measure(direct, through, options.rounds, options.seconds)).items():
        say(name, direct=round(a, 2), gateway=round(b, 2), share=round(b / a, 2))
    say("memory of the gateway, MB more", gateway=round(memory(pid) - before, 1))
    if options.idle:
        took = asyncio.run(idle(through, options.idle, pid))
        say(f"{options.idle} idle WebSockets, MB", gateway=round(took, 1))
    for worker in workers:
        worker.terminate()


if __name__ == "__main__":
    main()
