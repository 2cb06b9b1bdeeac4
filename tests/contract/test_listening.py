"""Where a process listens, which signals end it, and what it does without free descriptors."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, processes_with, running
from tests.contract.service import until

ANY = "0.0.0.0"  # noqa: S104 - with an API key


@asynccontextmanager
async def served(cluster: Cluster, tmp_path: Path, **variables: str) -> AsyncIterator[tuple[int, Path]]:
    """Run the service until it answers on 127.0.0.1; yield its port and log."""
    port, log = free_port(), tmp_path / "log"
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port), **variables)
    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
        yield port, log


async def answers(host: str, port: int) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{host}:{port}/health") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False


@pytest.mark.parametrize(
    "variables",
    [
        {},
        pytest.param({"PROVISIONER_API_KEY": "k3y"}, marks=pytest.mark.slow),
        pytest.param({"HOST": "::", "PROVISIONER_API_KEY": "k3y"}, marks=pytest.mark.slow),
        pytest.param({"LISTEN_HOST": "127.0.0.1, [::1], localhost"}, marks=pytest.mark.slow),
    ],
    ids=["default", "default with a key", "HOST=::", "a list"],
)
async def test_it_listens_on_both_families(cluster: Cluster, tmp_path: Path, variables: dict[str, str]) -> None:
    async with served(cluster, tmp_path, **variables) as (port, log):
        assert await answers("[::1]", port)
        (line,) = (line for line in log.read_text().splitlines() if "listening on" in line)
        assert f"http://[::1]:{port}" in line or f"http://[::]:{port}" in line


@pytest.mark.slow
async def test_an_ipv4_address_is_no_ipv6_address(cluster: Cluster, tmp_path: Path) -> None:
    async with served(cluster, tmp_path, LISTEN_HOST="127.0.0.1") as (port, _):
        assert not await answers("[::1]", port)


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
@pytest.mark.slow
async def test_a_taken_port_of_one_family_stops_the_start(cluster: Cluster, tmp_path: Path, taken: str) -> None:
    port, log = free_port(), tmp_path / "log"
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port))
    with socket.socket(family) as other:
        other.bind((taken, port))
        other.listen()
        async with running(*PROVISIONER, environ=environ, log=log) as process:
            assert await asyncio.wait_for(process.wait(), 60) == 1
    assert "it is taken. Set LISTEN_PORT to another." in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
async def test_a_signal_ends_the_process_in_order(cluster: Cluster, tmp_path: Path, number: int) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port))
    async with running(*PROVISIONER, environ=environ, log=log) as process:
        await until(healthy(port))
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []
    assert "stopped" in log.read_text()


@pytest.mark.slow
async def test_under_nohup_a_hangup_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port))
    async with running("nohup", *PROVISIONER, environ=environ, log=log) as process:
        await until(healthy(port))
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        assert await answers("127.0.0.1", port)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize("command", ["check", "reap"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
async def test_a_signal_to_a_command_leaves_no_directory_and_no_kubectl(
    cluster: Cluster, tmp_path: Path, command: str, number: int
) -> None:
    cluster.faults.hang(verb="list")
    cluster.faults.hang(verb="get")
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig))
    seen = len(cluster.kmock.requests)
    async with running(*PROVISIONER, command, environ=environ, log=tmp_path / "log") as process:
        await until(lambda: len(cluster.kmock.requests) > seen)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == (2 if command == "check" else 1)
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_an_unknown_expectation_is_417_in_json(cluster: Cluster, tmp_path: Path) -> None:
    async with served(cluster, tmp_path) as (port, _), aiohttp.ClientSession() as session:
        for path in ("/api/sandboxes", "/health", "/nowhere"):
            url = f"http://127.0.0.1:{port}{path}"
            async with session.get(url, headers={"Expect": "200-ok"}) as response:
                assert response.status == 417
                assert await response.json() == {"detail": "Expectation Failed"}


def times_of(text: str, log: Path) -> list[datetime]:
    """Return the times of the lines whose event has this text."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [datetime.fromisoformat(line["timestamp"]) for line in lines if text in line["event"]]


@pytest.mark.slow
async def test_without_free_descriptors_the_log_stays_short(cluster: Cluster, tmp_path: Path) -> None:
    """The process gets few descriptors, and more connections than these."""
    few = f"import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); os.execv({sys.executable!r}, "
    port, log = free_port(), tmp_path / "log"
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port))
    program = f"{few}{[*PROVISIONER]!r})"
    async with running(sys.executable, "-c", program, environ=environ, log=log):
        await until(healthy(port))
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            await until(lambda: len(times_of("socket.accept()", log)) >= 3)
        times = times_of("socket.accept()", log)
        assert all(later - earlier > timedelta(seconds=0.9) for earlier, later in itertools.pairwise(times))
        assert "Traceback" not in log.read_text()
        await until(healthy(port))


async def test_an_address_that_no_socket_takes_is_said_with_its_variable(cluster: Cluster, tmp_path: Path) -> None:
    """An IPv4 address in IPv6's form, for sockets that take no IPv4."""
    log = tmp_path / "log"
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_HOST="::ffff:127.0.0.1")
    async with running(*PROVISIONER, environ=environ, log=log) as process:
        assert await asyncio.wait_for(process.wait(), 60) == 1
    assert "Invalid argument. Set LISTEN_HOST to another." in log.read_text()
