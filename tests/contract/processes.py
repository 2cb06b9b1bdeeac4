"""Runs the service and other programs as child processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.service import KUBECTL
from tests.marker import look_at
from tests.waiting import until

PROVISIONER = (sys.executable, str(ROOT / "provisioner.py"))


PORTS = range(20_000, 30_000)
"""Below the kernel's ephemeral ports, and below those that devcluster opens for Services."""

_held: list[socket.socket] = []


def free_port() -> int:
    """Return a free port, for a program that needs a fixed one.

    It stays free until that program listens: no connection uses it as its local port, and no other pytest on this
    machine returns it while this process runs, since an abstract Unix socket reserves its number.
    """
    for port in random.sample(PORTS, len(PORTS)):
        mine = socket.socket(socket.AF_UNIX)
        try:
            mine.bind(f"\0port-of-a-test-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:  # the number is reserved, or the port is in use
            mine.close()
        else:
            _held.append(mine)
            return port
    raise OSError("no port is free")


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a service that answers without a key, also if the tests run in a Pod."""
    return {
        "ALLOW_UNAUTHENTICATED": "true",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "KUBECTL": str(KUBECTL),
        **variables,
    }


async def run(*argv: str, environ: dict[str, str], seconds: float = 150) -> tuple[int, str, str]:
    """Run a program until it exits; return its exit code, stdout and stderr."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, env=environ, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(seconds):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    look_at(f"stdout of {argv[-1]}", stdout)
    look_at(f"stderr of {argv[-1]}", stderr)
    return process.returncode, stdout.decode(), stderr.decode()


@asynccontextmanager
async def running(*argv: str, environ: dict[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in its own process group during the block, with its output in `log`; then kill the group."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # the whole group has exited
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        look_at(f"the log of {argv[-1]}", log)


def healthy(port: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def ask() -> bool:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as response:
                    return response.status == 200
            except aiohttp.ClientConnectionError:
                return False

    return ask


def command_of(pid: int) -> bytes:
    """Return the command line of a process with NUL after each argument, or b"" if it has exited."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill_each(pids: Iterable[int]) -> None:
    """Kill processes; ignore those that have already exited."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_with(text: str) -> list[int]:
    """Return the pids of processes with this text in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:  # it has exited, or belongs to another user
            continue
    return found


@pytest.fixture
async def service_url(cluster: Cluster, tmp_path: Path) -> AsyncIterator[str]:
    """Run the service with an API key, and return its base URL."""
    port = free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        PORT=str(port),
        HOST="127.0.0.1",
        NODE_HOST="127.0.0.1",
        PROVISIONER_API_KEY="k3y",
        ALLOW_UNAUTHENTICATED="true",
    )
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log"):
        await until(healthy(port))
        yield f"http://127.0.0.1:{port}"


async def smoke(base: str, *arguments: str, tmp_path: Path, **variables: str) -> tuple[int, str, str]:
    path = f"{KUBECTL.parent}:/usr/bin:/bin"
    environ = {**environment(tmp_path), "PATH": path, **variables}
    return await run(str(ROOT / "scripts" / "smoke.sh"), base, *arguments, environ=environ)
