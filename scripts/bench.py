"""Measures a running provisioner. A row is a phase: the same work many times, by so many callers at once.

- A figure is the median over the rounds; each phase runs once a round. p50, p99: latency in ms, by nearest rank.
- 1/s: good answers per second. A good answer is a success that names the sandboxes that it should.
- health: the yardstick, the least that a request costs on this machine. The client shares its processors.
- direct: the floor, the same Pod and Service by HTTP at the API server: each work is two requests, one after the other,
  and `health` is GET /version. Set the provisioner's variables for it, such as K8S_NAMESPACE and SANDBOX_IMAGE.
- memory: PSS of the service and its children, in MB of 10^6 bytes, before the first round and after the last (Linux).

API_KEY, else PROVISIONER_API_KEY, is sent as X-API-Key. What a run made, bench-…, is deleted at its end, also after
Ctrl-C. Exit code: 0; 1 if anything failed, was cut short or is left behind; 2 for bad options; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import math
import os
import re
import secrets
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

REQUEST_SECONDS = 30.0  # a caller gives a create as much, and everything else less
GONE_SECONDS = 60.0  # how long deleted sandboxes may take to be gone
CLEANERS = 8  # few at once: what is left may be there because the service could not keep up
READS = 10  # how often a phase reads each sandbox
ID, A_SANDBOX = "bench-id", re.compile(r"bench-[0-9a-f]{8}-\d+")

Works: TypeAlias = dict[str, list[tuple[str, str, str]]]
"""For each work its requests, with ID for the sandbox's: method, path, body."""

SERVICE: Works = {
    "health": [("GET", "/health", "")],
    "create": [("POST", "/api/sandboxes", json.dumps({"sandbox_id": ID, "thread_id": "bench"}))],
    "get": [("GET", f"/api/sandboxes/{ID}", "")],
    "list": [("GET", "/api/sandboxes", "")],
    "delete": [("DELETE", f"/api/sandboxes/{ID}", "")],
}


class Failed(Exception):
    """A request, or a run, that failed; its text is for a person."""


class Sample(NamedTuple):
    """One phase of one round: the latencies of good answers in seconds, their rate, and how the others failed."""

    seconds: Sequence[float]
    rate: float
    failures: Counter[str]


@dataclass
class Client:
    """One server, by kept-alive connections; `made` is what may be there, `alive` what this client made."""

    name: str
    works: Works
    base: str
    headers: dict[str, str] = field(repr=False)
    tls: ssl.SSLContext | None = None
    made: set[str] = field(default_factory=set)
    alive: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ssl=self.tls or True)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **self.headers}
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self.session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)

    async def do(self, work: str, sandbox_id: str = "") -> float:
        """Do a work and return the seconds; raises Failed, also if an answer lacks a sandbox that it should name."""
        expected = set(self.alive) if work == "list" else {sandbox_id} - {""}
        if work == "create":
            self.made.add(sandbox_id)
        named, seconds = await self.ask(work, sandbox_id)
        if not all(expected <= some for some in named):
            raise Failed(f"{self.name}: the answer to {work} lacks a sandbox")
        if work == "create":
            self.alive.add(sandbox_id)
        elif work == "delete":
            self.alive.discard(sandbox_id)
            self.made.discard(sandbox_id)
        return seconds

    async def ask(self, work: str, sandbox_id: str = "") -> tuple[list[set[str]], float]:
        """Send the requests of a work in turn; returns which sandboxes each answer names, and the seconds of all."""
        named, total = [], 0.0
        for method, path, body in self.works[work]:
            url, data = (self.base + path).replace(ID, sandbox_id), body.replace(ID, sandbox_id) or None
            media_type = {"Content-Type": "application/apply-patch+yaml" if method == "PATCH" else "application/json"}
            started = perf_counter()
            try:
                async with self.session.request(
                    method, url, data=data, headers=media_type, allow_redirects=False
                ) as response:
                    text = await response.text(errors="replace")
            except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
                raise Failed(f"{self.name}: no answer to {work}: {str(error) or type(error).__name__}") from error
            total += perf_counter() - started
            if response.status not in ((200, 202, 404) if method == "DELETE" else (200, 201)):
                said = {401: "set API_KEY to its key, or renew the kubeconfig"}.get(response.status, text[:200])
                raise Failed(f"{self.name}: {work} was answered {response.status}: {said}")
            named.append(set(A_SANDBOX.findall(text)))
        return named, total


def direct_client(kubeconfig: str, made: set[str]) -> Client:
    """Return a client of the current context's API server, with the objects that the service makes. Raises Failed.

    The server's certificate is always checked, no credential plugin is run, and no token is sent in the clear.
    """
    program = str(Path(__file__).resolve().parent.parent / "provisioner.py")
    rendered = output_of(sys.executable, program, "render", "--sandbox-id", ID, "--thread-id", "bench")
    works: Works = {"health": [("GET", "/version", "")], "create": [], "get": [], "list": [], "delete": []}
    for one in (item for item in json.loads(rendered)["items"] if item["kind"] in {"Pod", "Service"}):
        every = f"/api/v1/namespaces/{one['metadata']['namespace']}/{one['kind'].lower()}s"
        path = f"{every}/{one['metadata']['name']}"
        works["create"].append(("PATCH", f"{path}?fieldManager=provisioner&force=true", json.dumps(one)))
        works["get"].append(("GET", path, ""))
        works["list"].append(("GET", f"{every}?labelSelector=app%3Ddeer-flow-sandbox", ""))
        works["delete"].append(("DELETE", path, ""))
    kubectl = os.environ.get("KUBECTL") or str(Path(sys.executable).parent / "kubectl")
    flags = (f"--kubeconfig={kubeconfig}", "--raw", "--minify", "--flatten", "--output=json")
    view = json.loads(output_of(kubectl, "config", "view", *flags))
    cluster, user = view["clusters"][0]["cluster"], (view["users"] or [{"user": {}}])[0]["user"]
    data = {name: base64.b64decode(text) for name, text in (cluster | user).items() if name.endswith("-data")}
    tls = ssl.create_default_context(cadata=data.get("certificate-authority-data", b"").decode() or None)
    if "client-certificate-data" in data:
        with tempfile.NamedTemporaryFile(prefix="bench-") as file:  # ssl reads files only; this one is ours alone
            file.write(data["client-certificate-data"] + b"\n" + data["client-key-data"])
            file.flush()
            tls.load_cert_chain(file.name)
    base = cluster["server"].rstrip("/")
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user and base.startswith("https:") else {}
    return Client("direct", works, base, headers, tls, made)


def output_of(*command: str) -> str:
    """Return what a program prints; raises Failed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise Failed(f"this failed, run it to see why: {' '.join(command)}")
    return done.stdout


def process_tree(pid: int) -> list[int]:
    """Return the process and all that descend from it, as far as they can be seen (Linux)."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended
            for path in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


def memory(pid: int) -> str:
    """Return how much a process and its children hold together. Raises Failed if that can't be read."""
    kilobytes: list[str] = []
    for one in process_tree(pid):
        with suppress(OSError):  # it has ended
            kilobytes += re.findall(r"(?m)^Pss: +(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text())
    if not kilobytes:
        raise Failed(f"there is no process {pid} whose memory can be read")
    return f"{sum(map(int, kilobytes)) * 1024 / 1e6:.1f} MB in {len(kilobytes)} processes"


def listener(url: str) -> int | None:
    """Return the process that listens at a URL of this machine, where that can be seen (Linux)."""
    parts = urlsplit(url)
    if parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with suppress(OSError):  # there is no /proc
        rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if any(link.resolve().name in sockets for link in (process / "fd").iterdir()):
                    return int(process.name)
    return None


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of `values` (at least one) that at least `percent` % of them don't exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


async def sample(call: Callable[[str], Awaitable[float]], items: Iterable[str], callers: int) -> Sample:
    """Call once for each item, by so many callers at once; a call returns its latency, or raises Failed."""
    seconds: list[float] = []
    failures: Counter[str] = Counter()
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            try:
                seconds.append(await call(item))
            except Failed as error:
                failures[A_SANDBOX.sub("…", str(error))] += 1

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(work())
    return Sample(seconds, len(seconds) / (perf_counter() - started), failures)


class Bench:
    """One run of a provisioner and, after it in `clients`, direct; samples and failures are there however it ends."""

    def __init__(self, clients: Sequence[Client], options: argparse.Namespace) -> None:
        self.clients, self.options, self.stopped = clients, options, ""
        self.phases = [(work, callers) for callers in sorted({1, options.callers}) for work in SERVICE]
        self.prefix = f"bench-{secrets.token_hex(4)}-"
        self.ids = (f"{self.prefix}{number}" for number in itertools.count())
        self.samples: defaultdict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        self.failures: Counter[str] = Counter()

    def stop(self, why: str) -> None:
        """Begin nothing more; what is under way may end."""
        self.stopped = self.stopped or why

    async def run(self) -> None:
        """Run all phases of all rounds, until it is stopped. Raises Failed if it can't begin, or can't go on."""
        for client in self.clients:
            await client.do("list")
        for direct in self.clients[1:]:  # another cluster or namespace than the provisioner's is never loaded
            await self.clients[0].do("create", first := next(self.ids))
            await direct.do("get", first)
        for number, (work, callers) in itertools.product(range(self.options.rounds), self.phases):
            for client in self.clients[:: -1 if number % 2 else 1]:
                await self.measure(client, work, callers)
            if work == "delete" and not self.stopped and (left := await self.clear()):
                raise Failed(f"{len(left)} sandboxes that were deleted are still there")

    async def measure(self, client: Client, work: str, callers: int) -> None:
        """Run a phase once; keep what failed, and its sample if it was not stopped meanwhile."""
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

    async def clear(self) -> set[str]:
        """Delete what may be there, and wait until no server lists it; returns what is left after GONE_SECONDS."""
        left, deadline = set(self.clients[0].made), monotonic() + GONE_SECONDS
        while True:
            for client in self.clients:
                items = itertools.takewhile(lambda _: monotonic() < deadline, sorted(left))
                await sample(partial(client.do, "delete"), items, CLEANERS)
            left = set(self.clients[0].made)
            for client in self.clients:
                with suppress(Failed):  # what was not deleted is in `made`
                    named, _ = await client.ask("list")
                    left |= {one for one in set().union(*named) if one.startswith(self.prefix)}
            if not left or monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)

    def table(self) -> str:
        """Return an aligned row for each phase, with direct's figures and the ratios to them where there are any."""
        rows = [["phase", "callers", "p50 ms", "p99 ms", "1/s", "failed"]]
        rows[0] += ["direct p50", "p99", "1/s", "failed", "ratio p50", "1/s"] * (len(self.clients) - 1)
        for work, callers in self.phases:
            both = [figures(self.samples[client.name, work, callers]) for client in self.clients]
            cells = [*itertools.chain(*both), *(both[0][at] / both[1][at] for at in (0, 2) if len(both) > 1)]
            rows.append([work, str(callers), *(str(one) if isinstance(one, int) else f"{one:.2f}" for one in cells)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def figures(samples: Sequence[Sample]) -> tuple[float, float, float, int]:
    """Return p50 and p99 in ms, the rate, and how many requests failed; nan where no answer was good."""
    good = [one for one in samples if one.seconds] or [Sample([math.nan], math.nan, Counter())]
    p50, p99 = (statistics.median(1000 * percentile(one.seconds, percent) for one in good) for percent in (50, 99))
    return p50, p99, statistics.median(one.rate for one in good), sum(one.failures.total() for one in samples)


async def run(options: argparse.Namespace) -> int:
    """Measure, clean up, and print what came of it; returns the exit code."""
    key = os.environ.get("API_KEY") or os.environ.get("PROVISIONER_API_KEY")
    clients = [Client("provisioner", SERVICE, options.base_url.rstrip("/"), {"X-API-Key": key} if key else {})]
    bench, pid, held = Bench(clients, options), options.pid or listener(options.base_url), []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, bench.stop, "interrupted")
    loop.call_later(options.max_seconds, bench.stop, "--max-seconds are over")
    try:
        if options.direct:
            clients.append(direct_client(options.direct, clients[0].made))
        held += [memory(pid)] if pid else []
        await bench.run()
        held += [memory(pid)] if pid else []
    except Failed as error:
        bench.failures[str(error)] += 1
    finally:
        left = await bench.clear() if clients[0].made else set()
        for client in clients:
            await client.session.close()
    if bench.samples:
        sys.stdout.write(f"{bench.table()}\n" + (f"memory of {pid}: {', then '.join(held)}\n" if held else ""))
    problems = [f"{text} ({times} times)" if times > 1 else text for text, times in bench.failures.most_common(5)]
    problems += [f"{bench.stopped}: phases that had not ended are left out"] if bench.stopped else []
    problems += [f"LEFT BEHIND: {' '.join(sorted(left))}"] if left else []
    sys.stderr.writelines(f"bench: {text}\n" for text in problems)
    return 130 if bench.stopped == "interrupted" and not left else int(bool(problems))


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", metavar="BASE_URL", help="the provisioner, such as http://127.0.0.1:8002")
    parser.add_argument("--direct", metavar="KUBECONFIG", help="do the same work at this API server, and print ratios")
    for name, default, text in (
        ("--sandboxes", 50, "in a phase, at least one for each caller (default 50)"),
        ("--callers", 50, "of the phases with many (default 50)"),
        ("--rounds", 3, "of all phases (default 3)"),
        ("--max-seconds", 600, "begin nothing more after so long (default 600)"),
        ("--pid", None, "whose memory is shown (default: who listens at BASE_URL, where that can be seen)"),
    ):
        parser.add_argument(name, type=int, default=default, metavar="N", help=text)
    options = parser.parse_args()
    if min(options.sandboxes, options.callers, options.rounds, options.max_seconds) < 1:
        parser.error("every N is at least 1")
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
