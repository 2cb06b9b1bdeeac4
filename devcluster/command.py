"""The command line: options, the kubeconfig's path on stdout, the command that runs inside the cluster, and signals."""

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from devcluster import audit
from devcluster.cluster import Cluster
from devcluster.several import InUseError, several

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10.0


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line. The arguments after `--` are the command."""
    own, _, command = _split(argv)
    parser = argparse.ArgumentParser(
        prog="python -m devcluster",
        description="devcluster, a stand-in for development: a small server that kubectl can talk to.",
        usage="%(prog)s [options] [-- COMMAND ARG...]",
        epilog="Without COMMAND it prints the path of its kubeconfig and serves until SIGINT or SIGTERM.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any)")
    parser.add_argument("--directory", type=Path, help="where to write the kubeconfig (default: a temporary one)")
    parser.add_argument("--plain-http", action="store_true", help="no TLS, and no token")
    parser.add_argument(
        "--ready-after",
        type=float,
        default=0.3,
        metavar="SECONDS",
        help="minimum time until a Pod is ready (default: 0.3)",
    )
    parser.add_argument(
        "--pod-servers",
        action="store_true",
        help="let Pods answer at their own addresses, which are of this machine's loopback, too",
    )
    parser.add_argument(
        "--audit-log", type=Path, metavar="FILE", help="append each request to this file, as a line of JSON"
    )
    parser.add_argument(
        "--clusters",
        type=int,
        choices=range(1, 10),
        metavar="NUMBER",
        help="run so many clusters, dev-1, dev-2, …, and set CLUSTERS_FILE to a list of them; without COMMAND, the "
        "path of that list is printed",
    )
    options = parser.parse_args(own)
    if options.clusters and options.port:
        parser.error("--port is for one cluster")
    options.command = command
    return options


def _split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in argv:
        return argv, "", []
    at = argv.index("--")
    return argv[:at], "--", argv[at + 1 :]


def main(argv: list[str]) -> int:
    """Run the command line. Return the exit code: that of the command, or 0."""
    options = parse(argv)
    # A full collection visits all stored objects: it would stop the server for 0.5 s at 2,000 sandboxes, as no real
    # server does.
    gc.set_threshold(*gc.get_threshold()[:2], 1000)
    logging.basicConfig(level=logging.WARNING, format="devcluster: %(levelname)s: %(message)s")
    if options.audit_log:
        audit.write_to(options.audit_log)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    stop: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.put_nowait, number)

    def make(directory: Path | None) -> Cluster:
        return Cluster(
            options.port,
            directory,
            ready_after=options.ready_after,
            tls=not options.plain_http,
            pod_servers=options.pod_servers,
        )

    if options.clusters is None:
        async with make(options.directory) as cluster:
            return await _serve(options.command, stop, cluster.kubeconfig, _kubeconfig_variables(cluster))
    try:
        async with several(options.clusters, options.directory, make) as running:
            variables = _kubeconfig_variables(running.clusters[0]) | {"CLUSTERS_FILE": str(running.file)}
            return await _serve(options.command, stop, running.file, variables)
    except InUseError as error:
        sys.stderr.write(f"devcluster: {error}\n")
        return 1


def _kubeconfig_variables(cluster: Cluster) -> dict[str, str]:
    return dict.fromkeys(("KUBECONFIG_PATH", "KUBECONFIG"), str(cluster.kubeconfig))


async def _serve(
    command: list[str], stop: asyncio.Queue[signal.Signals], file: Path, variables: Mapping[str, str]
) -> int:
    """Run the command with these variables; without one, print the path and wait for a signal. Return the exit code."""
    if command:
        return await _run_command(command, variables, stop)
    sys.stdout.write(f"{file}\n")
    sys.stdout.flush()
    await stop.get()
    return 0


async def _run_command(command: list[str], variables: Mapping[str, str], stop: asyncio.Queue[signal.Signals]) -> int:
    """Run a command with these variables and forward signals to it. Return its exit code."""
    environment = {"NODE_HOST": "127.0.0.1", **os.environ, **variables}
    try:
        # In a new session, so that a Ctrl-C in the terminal reaches it once, through us, and not twice.
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, start_new_session=True, preexec_fn=_leash()
        )
    except OSError as error:
        sys.stderr.write(f"devcluster: can't run {command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    passing = asyncio.create_task(_pass_on(process, stop))
    try:
        code = await process.wait()
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)
        if process.returncode is None:
            await _terminate(process)
    return code if code >= 0 else 128 - code


def _leash() -> Callable[[], None] | None:
    """Return a preexec_fn that makes the command end if devcluster is killed; None except on Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _pass_on(process: asyncio.subprocess.Process, stop: asyncio.Queue[signal.Signals]) -> None:
    """Forward signals to the process."""
    while True:
        number = await stop.get()
        with suppress(ProcessLookupError):
            process.send_signal(number)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """End a running command: SIGTERM first, SIGKILL after a grace period."""
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
