"""The command line: options, what is refused, where the report goes, the exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import scripts.bench
from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from scripts.bench.client import BenchError, is_loopback
from scripts.bench.kubeconfig import read_kubeconfig
from scripts.bench.memory import measure
from scripts.bench.report import as_json, as_table
from scripts.bench.rounds import Plan
from scripts.bench.run import Limits, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.bench.client import Endpoint
    from scripts.bench.report import Report

# What Kubernetes has unless its operator says otherwise: 30000 to 32767.
NODE_PORTS = 2768

OWN_CLUSTER = "--yes-i-own-this-cluster"

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 if anything failed, 2 if it was refused, or 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        settings = Settings.load()
        direct = None if options.direct is None else read_kubeconfig(options.direct)
        if options.pid is not None:
            measure(options.pid, "now")
    except (StartupError, BenchError) as error:
        parser.error(str(error))
    _refuse(parser, options, settings, direct)
    plan = Plan(options.count, options.callers, options.rounds, options.reads, options.list_size)
    run = Run(options.base_url.rstrip("/"), plan, Limits(options.max_seconds, options.pid), settings, direct)
    report = asyncio.run(run.run(os.environ.get("API_KEY")))
    _write(report, options.json)
    return INTERRUPTED if run.interrupted else int(not report.is_good)


def _write(report: Report, json_to: str | None) -> None:
    """Print the table, and the JSON to where it is wanted; a file that can't be written costs no figure."""
    if json_to == "-":
        sys.stdout.write(as_json(report))
        sys.stderr.write(as_table(report))
        return
    sys.stdout.write(as_table(report))
    if json_to is not None:
        try:
            Path(json_to).write_text(as_json(report), encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"bench: {json_to} can't be written: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description="Measures a running provisioner: health, create, get, list and delete, one at a time and by many\n"
        "callers at once. It makes and deletes sandboxes named bench-…, and cleans up after itself, even on Ctrl-C.\n"
        "Exit code: 0, or 1 if any request failed or anything was not done or is left, 2 if it refuses, 130 on Ctrl-C.",
        epilog=(scripts.bench.__doc__ or "").partition("\n\n")[2]
        + "\nIn the environment: API_KEY, sent as X-API-Key; and for --direct what the provisioner has there, at least"
        "\nK8S_NAMESPACE, SANDBOX_IMAGE and SANDBOX_SERVICE_TYPE.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base_url", metavar="BASE_URL", help="the provisioner, such as http://127.0.0.1:8002")
    for name, default, most, text in (
        ("--count", 50, 2000, "sandboxes, and lists, of a phase; at least one for each caller"),
        ("--callers", 50, 1000, "callers of the concurrent phases"),
        ("--rounds", 3, 100, "rounds; medians over them are reported"),
        ("--reads", 1000, 100_000, "requests of a phase of health or get"),
        ("--max-seconds", 600, 86_400, "begin nothing more after so long; what is left is then cleaned up"),
        ("--list-size", None, 20_000, "after the rounds, make so many sandboxes and time the list of them"),
        (
            "--pid",
            None,
            2**22,
            "measure the memory of this process and its children, too; not run.sh's, which includes devcluster (Linux)",
        ),
    ):
        suffix = "" if default is None else f" (default {default})"
        parser.add_argument(name, type=_between(1, most), default=default, metavar="N", help=text + suffix)
    parser.add_argument(
        "--direct", type=Path, metavar="KUBECONFIG", help="do the same work straight to this API server: the floor"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON; - is stdout, the table then on stderr"
    )
    parser.add_argument(OWN_CLUSTER, action="store_true", help="allow addresses other than loopback")
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}")
        return int(text)

    return number


def _refuse(
    parser: argparse.ArgumentParser, options: argparse.Namespace, settings: Settings, direct: Endpoint | None
) -> None:
    """End with exit code 2 and a sentence if this must not be done, or can't."""
    url = urlsplit(options.base_url)
    if url.scheme not in {"http", "https"} or not url.hostname or url.username or url.query:
        parser.error("BASE_URL must be like http://127.0.0.1:8002")
    for address in (options.base_url, *([direct.base] if direct else [])):
        if not options.yes_i_own_this_cluster and not is_loopback(urlsplit(address).hostname):
            parser.error(f"{address} is not this machine. To load it all the same, add {OWN_CLUSTER}.")
    if options.json not in {None, "-"} and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"There is no folder for {options.json}.")
    at_once = max(max(options.count, options.callers) * (2 if direct else 1), options.list_size or 0)
    if settings.sandbox_service_type == "NodePort" and at_once > NODE_PORTS:
        parser.error(
            f"This needs {at_once} node ports at once, and a cluster has {NODE_PORTS:,}. Start the provisioner with "
            "SANDBOX_SERVICE_TYPE=ClusterIP, and set it here, too."
        )
