"""Measures a running provisioner. Each row is a phase: the same request, many times, by a number of concurrent callers.

- Each phase runs once a round; a figure is the median over the rounds. p50, p99: latency in ms, by nearest rank.
- 1/s: good answers per second. A good answer is a success that names the expected sandboxes.
- health: the baseline, the lowest cost of a request on this machine. The client shares its processors.
- direct: the lower bound, the same Pod and Service by HTTP at the API server: two requests in sequence for each, and
  GET /version for `health`. Set the provisioner's variables for it, such as K8S_NAMESPACE and SANDBOX_IMAGE.
- memory: PSS of the service and its children, in MB of 10^6 bytes, before the first round and after the last (Linux).

--start, --fill, --idle and --changes measure the live view instead, in this order, one line each:

- start to ready: from the start of COMMAND, which inherits this environment, until GET /readyz is 200, whose results
  are cached for some seconds. The sandboxes of --fill are created before, so their namespace must exist.
- list: GET /api/sandboxes, one at a time.
- idle: CPU time of the service and all its children, including ended ones, in % of one core (Linux).
- memory: of the service, and of its largest child, sampled once a second.
- seen after: from sending a change of a Pod to the API server until GET /api/events reports it.

--clusters measures a service with so many clusters of devcluster, which the run starts and ends, as it does the service
(COMMAND, if given; it listens at BASE_URL). Each has --fill sandboxes (default 250). Twice, with the first cluster and
with all: the lines above. Then, with all:

- memory of a further cluster: the difference between both, divided by the number of clusters between them.
- get, list, create and delete of the other clusters' sandboxes, before the last cluster hangs (it accepts connections
  and sends nothing), at once then, and later, when the list says that it is incomplete. Few callers ask for the last
  one's sandboxes all the time. Medians of --rounds; the ratio is that of the p99 to the one before.

--gateway measures the gateway against dialling a sandbox directly, without a service or a cluster: the run starts a
small server and the gateway as processes, and measures both in turns. Each line: the medians of --rounds of direct and
through the gateway, and their ratio. --callers is 20 then, unless it is given. Memory: RSS of the gateway, in MB of
10^6 bytes; of the transfers the peak. It needs Linux.

API_KEY, else PROVISIONER_API_KEY, is sent as X-API-Key. At its end, also after Ctrl-C, a run deletes all sandboxes that
it created (bench-…). Exit code: 0; 1 if anything failed, was cut short or is left behind; 2 for bad options; 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import signal
import statistics
import sys
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run by its path: import `scripts` from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import bench_gateway
from scripts.bench_clients import SERVICE, Client, Failed, Run, Sample, direct_client, percentile, sample
from scripts.bench_clusters import Clusters
from scripts.bench_processes import listener, memory
from scripts.bench_view import CHANGES, View

if TYPE_CHECKING:
    from collections.abc import Sequence

READS = 10  # reads of each sandbox in a phase
LEAST_CLUSTERS, MOST_CLUSTERS = 2, 50
FILL = 250  # sandboxes of each of --clusters


class Bench(Run):
    """Runs all phases. The samples so far are kept if the run is stopped or fails."""

    def __init__(self, clients: list[Client], options: argparse.Namespace) -> None:
        super().__init__(clients, options)
        self.phases = [(work, callers) for callers in sorted({1, options.callers}) for work in SERVICE]
        self.samples: defaultdict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        self.pid: int | None = options.pid or listener(options.base_url)
        self.held: list[str] = []

    async def run(self) -> None:
        """Run all rounds, or until stopped. Raises Failed if the run can't start or continue."""
        self.held += [memory(self.pid)] if self.pid else []
        for client in self.clients:
            await client.do("list")
        for direct in self.clients[1:]:  # never put load on a cluster or namespace that is not the provisioner's
            await self.clients[0].do("create", first := next(self.ids))
            await direct.do("get", first)
        for number, (work, callers) in itertools.product(range(self.options.rounds), self.phases):
            for client in self.clients[:: -1 if number % 2 else 1]:
                await self.measure(client, work, callers)
            if work == "delete" and not self.stopped and (left := await self.clear()):
                raise Failed(f"{len(left)} sandboxes that were deleted are still there")
        self.held += [memory(self.pid)] if self.pid else []

    async def measure(self, client: Client, work: str, callers: int) -> None:
        """Run a phase once. Count its failures; keep its sample unless the run was stopped."""
        count, alive = max(self.options.sandboxes, callers), sorted(client.alive)
        some = {"create": itertools.islice(self.ids, count), "list": [""] * count, "delete": alive}
        items = some.get(work, alive * READS if work == "get" else [""] * count * READS)
        until_stopped = itertools.takewhile(lambda _: not self.stopped, items)
        if not self.stopped:
            await sample(partial(client.do, "health"), [""] * callers, callers)  # opens the connections
        done = await sample(partial(client.do, work), until_stopped, callers)
        self.failures.update(done.failures)
        if not self.stopped:
            self.samples[client.name, work, callers].append(done)

    def report(self) -> str:
        """Return the table and the memory; empty without samples."""
        if not self.samples:
            return ""
        return f"{self.table()}\n" + (f"memory of {self.pid}: {', then '.join(self.held)}\n" if self.held else "")

    def table(self) -> str:
        """Return the aligned rows of all phases; with --direct, also its figures and the ratios to them."""
        rows = [["phase", "callers", "p50 ms", "p99 ms", "1/s", "failed"]]
        rows[0] += ["direct p50", "p99", "1/s", "failed", "ratio p50", "1/s"] * (len(self.clients) - 1)
        for work, callers in self.phases:
            both = [figures(self.samples[client.name, work, callers]) for client in self.clients]
            cells = [*itertools.chain(*both), *(both[0][at] / both[1][at] for at in (0, 2) if len(both) > 1)]
            rows.append([work, str(callers), *(str(one) if isinstance(one, int) else f"{one:.2f}" for one in cells)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def figures(samples: Sequence[Sample]) -> tuple[float, float, float, int]:
    """Return p50 and p99 in ms, the rate per second and the number of failures; nan without a good answer."""
    good = [one for one in samples if one.seconds] or [Sample([math.nan], math.nan, Counter())]
    p50, p99 = (statistics.median(1000 * percentile(one.seconds, percent) for one in good) for percent in (50, 99))
    return p50, p99, statistics.median(one.rate for one in good), sum(one.failures.total() for one in samples)


async def run(options: argparse.Namespace) -> int:
    """Measure, clean up and print the report. Return the exit code."""
    key = os.environ.get("API_KEY") or os.environ.get("PROVISIONER_API_KEY")
    clients = [Client("provisioner", SERVICE, options.base_url.rstrip("/"), {"X-API-Key": key} if key else {})]
    bench = (Clusters if options.clusters else View if options.is_view else Bench)(clients, options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, bench.stop, "interrupted")
    loop.call_later(options.max_seconds, bench.stop, "--max-seconds are over")
    try:
        if options.direct:
            clients.append(direct_client(options.direct, clients[0].made))
        await bench.run()
    except Failed as error:
        bench.failures[str(error)] += 1
    finally:
        left = await bench.clear() if clients[0].made else set()
        for client in clients:
            await client.session.close()
    sys.stdout.write(bench.report())
    problems = [f"{text} ({times} times)" if times > 1 else text for text, times in bench.failures.most_common(5)]
    problems += [f"{bench.stopped}: phases that had not ended are left out"] if bench.stopped else []
    problems += [f"LEFT BEHIND: {' '.join(sorted(left))}"] if left else []
    sys.stderr.writelines(f"bench: {text}\n" for text in problems)
    return 130 if bench.stopped == "interrupted" and not left else int(bool(problems))


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "base_url", metavar="BASE_URL", nargs="?", help="the provisioner, such as http://127.0.0.1:8002"
    )
    parser.add_argument("--direct", metavar="KUBECONFIG", help="do the same work at this API server, and print ratios")
    for name, default, text in (
        ("--sandboxes", 50, "sandboxes in a phase, at least one for each caller (default 50)"),
        ("--callers", None, "concurrent callers in the phases with many (default 50)"),
        ("--rounds", 3, "repetitions of all phases (default 3)"),
        ("--max-seconds", 600, "start no further request after this time (default 600)"),
        ("--pid", None, "process whose memory is measured (default: the one that listens at BASE_URL, on Linux)"),
    ):
        parser.add_argument(name, type=int, default=default, metavar="N", help=text)
    view = parser.add_argument_group("the live view", "with any of these, it is measured instead of the phases")
    view.add_argument(
        "--start", metavar="COMMAND", help="start the service at BASE_URL by this command, and end it after the run"
    )
    for name, metavar, text in (
        ("--fill", "N", "create N sandboxes at the API server first; needs --direct"),
        ("--idle", "SECONDS", "measure the CPU time for this long, without requests"),
        ("--changes", "RATE", f"make {CHANGES} changes at the API server, RATE per second; needs --direct"),
    ):
        view.add_argument(name, type=int, default=0, metavar=metavar, help=text)
    view.add_argument(
        "--clusters", type=int, default=0, metavar="N", help="measure a service with N clusters, from 2 to 50"
    )
    gateway = parser.add_argument_group("the gateway")
    gateway.add_argument("--gateway", action="store_true", help="measure the gateway; without BASE_URL")
    for name, default, text in (
        ("--seconds", 2, "duration of each measure of requests and messages (default 2)"),
        ("--megabytes", 1000, "size of each download and upload (default 1000)"),
        ("--sockets", 1000, "idle WebSockets whose memory is measured (default 1000)"),
    ):
        gateway.add_argument(name, type=int, default=default, metavar="N", help=text)
    return parser


def main() -> int:
    """Run the command line. Return the exit code."""
    parser = command_line()
    options = parser.parse_args()
    if options.callers is None:
        options.callers = 20 if options.gateway else 50
    options.is_view = bool(options.start or options.fill or options.idle or options.changes)
    counts = (options.sandboxes, options.callers, options.rounds, options.max_seconds)
    if min(*counts, options.seconds, options.megabytes, options.sockets) < 1:
        parser.error("every N is at least 1")
    if min(options.fill, options.idle, options.changes) < 0:
        parser.error("--fill, --idle and --changes are not negative")
    if bool(options.base_url) == options.gateway:
        parser.error("either BASE_URL or --gateway is needed")
    if options.gateway and (options.is_view or options.clusters or options.direct or options.pid):
        parser.error("--gateway is without --direct, --clusters, --pid and the options of the live view")
    check_view(parser, options)
    return bench_gateway.run(options) if options.gateway else asyncio.run(run(options))


def check_view(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error if options of the live view and of several clusters do not fit together."""
    if options.clusters:
        if not LEAST_CLUSTERS <= options.clusters <= MOST_CLUSTERS:
            parser.error(f"--clusters is from {LEAST_CLUSTERS} to {MOST_CLUSTERS}")
        if options.direct or options.changes or options.pid:
            parser.error("--clusters is without --direct, --changes and --pid")
        options.fill = options.fill or FILL
    elif (options.fill or options.changes) and not options.direct:
        parser.error("--fill and --changes need --direct")


if __name__ == "__main__":
    sys.exit(main())
