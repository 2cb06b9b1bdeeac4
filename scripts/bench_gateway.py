"""Measures the gateway against dialling a sandbox directly: the same callers, a small server beside it, in turns.

The server, the gateway and the callers are processes of their own, as they are deployed.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import re
import signal
import socket
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from sandboxes.access import tokens
from sandboxes.access.tokens import Subject
from sandboxes.deadlines import DEADLINES
from sandboxes.gateway.interface import Candidate, Ground
from sandboxes.gateway.limits import raise_descriptor_limit
from sandboxes.gateway.server import Gateway
from sandboxes.gateway_settings import GatewaySettings
from sandboxes.tasks import Signal
from scripts.bench_clients import Failed
from scripts.bench_processes import leash

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sandboxes.objects import KubeObject

MEGABYTE = 10**6
CHUNK = bytes(64 * 1024)
# The thresholds of malloc that the Dockerfile sets: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX.
MALLOC = ((-1, 131072), (-3, 131072), (-8, 2))


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
        self._found = (Candidate(Subject("", "ns", "bench", "u", port, ""), pod, may_be_loopback=True),)

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

    _begin_process()
    asyncio.run(main())


def _serve_gateway(listening: socket.socket, port: int) -> None:
    async def main() -> None:
        settings = GatewaySettings().model_copy(update={"sandbox_gateway_max_connections": 100_000})
        gateway = Gateway(Ground(_Pods(port), _Keys(), settings, _Metrics(), DEADLINES))
        await gateway.start([listening])
        await asyncio.Event().wait()

    _begin_process()
    for name, value in MALLOC:
        ctypes.CDLL(None).mallopt(name, value)
    asyncio.run(main())


def _begin_process() -> None:
    """End with the process that measures, and not by Ctrl-C before it."""
    leash()()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def requests(url: str, seconds: float, callers: int) -> float:
    """Return the requests per second of so many callers."""
    done = 0
    until = time.perf_counter() + seconds

    async def call(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < until:
            async with session.get(f"{url}/small") as response:
                await response.read()
            done += 1

    async with _session() as session:
        await asyncio.gather(*(call(session) for _ in range(callers)))
    return done / seconds


async def alone(url: str, seconds: float) -> float:
    """Return the median time of a request of one caller, in ms."""
    times: list[float] = []
    async with _session() as session:
        until = time.perf_counter() + seconds
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            async with session.get(f"{url}/small") as response:
                await response.read()
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def down(url: str, megabytes: int) -> float:
    """Return MB/s of a download."""
    size = megabytes * MEGABYTE
    async with _session() as session:
        began = time.perf_counter()
        got = 0
        async with session.get(f"{url}/down?bytes={size}") as response:
            async for chunk in response.content.iter_any():
                got += len(chunk)
    if got != size:
        raise Failed(f"a download of {size} bytes brought {got}")
    return megabytes / (time.perf_counter() - began)


async def up(url: str, megabytes: int) -> float:
    """Return MB/s of an upload."""
    size = megabytes * MEGABYTE

    async def chunks() -> AsyncIterator[bytes]:
        for left in range(size, 0, -len(CHUNK)):
            yield CHUNK[:left]

    async with _session() as session:
        began = time.perf_counter()
        async with session.put(f"{url}/up", data=chunks(), headers={"Content-Length": str(size)}) as response:
            if (got := await response.text()) != str(size):
                raise Failed(f"an upload of {size} bytes brought {got}")
    return megabytes / (time.perf_counter() - began)


async def messages(url: str, seconds: float, callers: int) -> float:
    """Return the WebSocket messages per second, there and back, of so many callers."""
    done = 0
    until = time.perf_counter() + seconds

    async def call(session: aiohttp.ClientSession) -> None:
        nonlocal done
        async with session.ws_connect(f"{url}/ws") as ws:
            while time.perf_counter() < until:
                await ws.send_str("a message of some forty characters, echoed")
                await ws.receive_str()
                done += 1

    async with _session() as session:
        await asyncio.gather(*(call(session) for _ in range(callers)))
    return done / seconds


async def idle(url: str, count: int, pid: int) -> float:
    """Return the MB that so many idle WebSockets take."""
    before = memory(pid)
    async with _session() as session:
        sockets = [await session.ws_connect(f"{url}/ws") for _ in range(count)]
        took = memory(pid) - before
        await asyncio.gather(*(one.close() for one in sockets))
    return took


def memory(pid: int, name: str = "VmRSS") -> float:
    """Return the resident memory of a process in MB of 10^6 bytes, or with VmHWM its peak."""
    found = re.search(rf"(?m)^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    if found is None:
        raise Failed(f"there is no process {pid} whose memory can be read")
    return int(found[1]) * 1024 / MEGABYTE


def run(options: argparse.Namespace) -> int:
    """Start the processes, measure, print a line for each measure, and end them. Return the exit code."""
    raise_descriptor_limit()
    processes = multiprocessing.get_context("fork")
    sandbox, gateway = (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2))
    ports = [one.getsockname()[1] for one in (sandbox, gateway)]
    workers = [
        processes.Process(target=_serve_sandbox, args=(sandbox,)),
        processes.Process(target=_serve_gateway, args=(gateway, ports[0])),
    ]
    for worker in workers:
        worker.start()
    try:
        urls = (f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}{_Pods(ports[0]).prefix}")
        asyncio.run(_measure(options, urls, workers[1].pid or 0))
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted: what had not ended is left out\n")
        return 130
    except TimeoutError:
        sys.stderr.write("bench: --max-seconds are over: what had not ended is left out\n")
        return 1
    except (Failed, aiohttp.ClientError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        sandbox.close()
        gateway.close()
    return 0


async def _measure(options: argparse.Namespace, urls: tuple[str, str], pid: int) -> None:
    callers, seconds = options.callers, options.seconds
    transfers = {"down, MB/s": partial(down, megabytes=options.megabytes)}
    transfers["up, MB/s"] = partial(up, megabytes=options.megabytes)
    async with asyncio.timeout(options.max_seconds):
        for url in urls:
            await requests(url, 0.1, callers)  # the servers have started then
        load = os.getloadavg()[0]
        _say(f"{options.rounds} rounds, {os.cpu_count()} processors, load {load:.1f}; direct and through the gateway:")
        await _compare(
            f"requests/s, {callers} callers", partial(requests, seconds=seconds, callers=callers), options, urls
        )
        await _compare("alone, p50 ms", partial(alone, seconds=seconds), options, urls)
        before = memory(pid)
        for name, one in transfers.items():
            await _compare(name, one, options, urls)
        more = max(0.0, memory(pid, "VmHWM") - before)
        _say(f"memory of the gateway, {options.megabytes} MB each way at a time: at most {more:.1f} MB more")
        await _compare(
            f"WebSocket messages/s, {callers} callers",
            partial(messages, seconds=seconds, callers=callers),
            options,
            urls,
        )
        _say(f"{options.sockets} idle WebSockets: {await idle(urls[1], options.sockets, pid):.1f} MB more")


async def _compare(
    name: str, one: Callable[[str], Awaitable[float]], options: argparse.Namespace, urls: tuple[str, str]
) -> None:
    """Print the medians of direct and through the gateway, measured in turns, and their ratio."""
    pairs = [[await one(url) for url in urls] for _ in range(options.rounds)]
    direct, through = (statistics.median(column) for column in zip(*pairs, strict=True))
    _say(f"{name}: {direct:.2f} and {through:.2f}, ratio {through / direct:.2f}")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), raise_for_status=True)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
