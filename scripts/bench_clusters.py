"""Measures a service with several clusters for scripts/bench.py: its memory, its lists, and what a hung cluster costs.

All clusters are devcluster, in processes of their own, which end with the run. The last one is alone in its process,
and hangs while that is stopped: the kernel accepts connections, and no byte is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import shlex
import signal
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import yaml

from sandboxes.fleet.rendezvous import home
from scripts.bench_clients import GONE_SECONDS, Client, Failed, Sample, direct_client, direct_works, percentile, sample
from scripts.bench_processes import cpu_seconds, held, leash, listener
from scripts.bench_view import FILLERS, LISTS, LOOK_SECONDS, SETTLE_SECONDS, View, in_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
MOST = 9  # clusters in one process of devcluster
START_SECONDS = 30.0
FIRSTS = 40  # sandboxes whose first get is measured; the later ones of the same sandboxes are answered from memory
GETS = 400
CALLERS = 2  # of the other clusters, at once
HUNG_EACH = {"get": 0.1, "miss": 0.5}  # seconds between two requests for the cluster that hangs, also before it does
WORKS = ("get", "list", "create", "delete")
# As scripts/run.sh sets them.
MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


class Footprint(NamedTuple):
    """Memory of the service and of its children in MB: RSS of the service, PSS of all children; their number."""

    service: float
    children: float
    number: float


class Clusters(View):
    """Runs the service with the first cluster, then with all of them; then hangs the last one, round by round."""

    hung: asyncio.subprocess.Process

    @property
    def names(self) -> list[str]:
        """Return the names of the clusters; the last one hangs."""
        return [f"c{number}" for number in range(1, self.options.clusters + 1)]

    async def clear(self) -> set[str]:
        """Return no sandbox: all clusters have ended, and their sandboxes with them."""
        return set()

    async def run(self) -> None:
        """Run everything, or until stopped. Raises Failed if a step can't start or continue."""
        os.environ.setdefault("SANDBOX_SERVICE_TYPE", "ClusterIP")  # devcluster has few node ports
        self.options.start = self.options.start or shlex.join([sys.executable, str(ROOT / "provisioner.py")])
        async with contextlib.AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            kubeconfigs = await self.open(directory, stack)
            ids = await self.fill_all(kubeconfigs)
            footprints = []
            for names in (self.names[:1], self.names):
                if self.stopped:
                    return
                file = directory / "clusters.yaml"
                file.write_text(json.dumps([{"name": name, "kubeconfig": kubeconfigs[name]} for name in names]))
                parts = urlsplit(self.clients[0].base)
                own = {"LISTEN_HOST": parts.hostname or "127.0.0.1", "LISTEN_PORT": str(parts.port or 80)}
                self.environ = {**MEMORY, **os.environ, **own, "CLUSTERS_FILE": str(file)}
                self.clients[0].alive = {one for name in names for one in ids[name]}
                self.lines.append(f"{len(names)} cluster{'s' * (len(names) > 1)}, load {os.getloadavg()[0]:.1f}:")
                try:
                    footprints.append(await self.one_service(len(names)))
                    if len(names) > 1:
                        self.compare(footprints)
                        await self.hang(ids)
                finally:
                    await self.end()

    async def open(self, directory: Path, stack: contextlib.AsyncExitStack) -> dict[str, str]:
        """Start all clusters. Return their kubeconfigs by name. Raises Failed."""
        kubeconfigs: list[str] = []
        others = len(self.names) - 1
        for first in (*range(0, others, MOST), others):  # the last process has the one that hangs
            folder = directory / str(first)
            count = min(others - first, MOST) or 1
            self.hung = await stack.enter_async_context(devcluster(count, folder))
            entries = yaml.safe_load((folder / "clusters.yaml").read_text())
            kubeconfigs += [str(entry["kubeconfig"]) for entry in entries]
        return dict(zip(self.names, kubeconfigs, strict=True))

    async def fill_all(self, kubeconfigs: dict[str, str]) -> dict[str, list[str]]:
        """Create the sandboxes of each cluster, whose home it is. Return their ids by cluster."""
        works = direct_works()
        servers: dict[str, Client] = {}
        for name, kubeconfig in kubeconfigs.items():
            servers[name] = direct_client(kubeconfig, set(), works)
            self.clients.append(servers[name])  # to be closed
            namespace = {"metadata": {"name": works["get"][0][1].split("/")[4]}}
            await servers[name].send("namespace", "POST", "/api/v1/namespaces", json.dumps(namespace))
        ids: dict[str, list[str]] = {name: [] for name in self.names}
        where: dict[str, Client] = {}
        while len(where) < self.options.fill * len(ids):
            one = next(self.ids)
            name = home(one, ids)
            if len(ids[name]) < self.options.fill:
                ids[name].append(one)
                where[one] = servers[name]
        for of_it in ids.values():
            await self.first(where[of_it[0]], of_it[0])
        until_stopped = itertools.takewhile(lambda _: not self.stopped, where)
        done = await sample(lambda one: where[one].do("create", one), until_stopped, FILLERS)
        if done.failures:
            raise Failed(next(iter(done.failures)))
        return ids

    async def first(self, server: Client, sandbox_id: str) -> None:
        """Create the first sandbox of a cluster: its namespace gets its service account in a moment only."""
        until = perf_counter() + START_SECONDS
        while True:
            try:
                await server.do("create", sandbox_id)
            except Failed:
                if perf_counter() > until:
                    raise
                await self.pause(0.1)
            else:
                return

    async def one_service(self, count: int) -> Footprint:
        """Start the service; measure it while nothing is wrong, and return its memory."""
        began = perf_counter()
        await self.start()
        await self.reached(lambda checks: len(checks) == count and set(checks.values()) == {"ok"})
        self.lines.append(f"start to all ready: {perf_counter() - began:.2f} s")
        await self.pause(min(SETTLE_SECONDS, self.options.idle))
        await self.list()
        service = self.clients[0]
        if (pid := listener(self.options.base_url)) and not self.stopped:
            before, _ = cpu_seconds(pid)
            for _ in range(LISTS):
                await service.do("list")
            spent = (cpu_seconds(pid)[0] - before) / LISTS
            self.lines.append(f"CPU of the service for a list: {1000 * spent:.1f} ms")
        some = list(itertools.islice(service.alive, FIRSTS))
        for text, items in (("first get", iter(some)), ("get", itertools.islice(itertools.cycle(some), GETS))):
            got = await sample(partial(service.do, "get"), items, 1)
            self.failures.update(got.failures)
            if got.seconds and not self.stopped:
                self.lines.append(f"{text} of a sandbox: {in_ms(got.seconds)}")
        return await self.footprint()

    async def reached(self, condition: Callable[[dict[str, str]], bool]) -> None:
        """Wait until the checks of /readyz are so. Raises Failed on timeout."""
        until = perf_counter() + GONE_SECONDS
        while not self.stopped:
            with contextlib.suppress(Failed):
                text, _ = await self.clients[0].send("readyz", "GET", "/readyz")
                if condition(json.loads(text)["checks"]):
                    return
            if perf_counter() > until:
                raise Failed(f"/readyz is not as expected after {GONE_SECONDS:.0f} s")
            await self.pause(0.1)

    async def footprint(self) -> Footprint:
        """Measure memory and CPU time without requests, for --idle seconds, and return the median memory."""
        pid = listener(self.options.base_url)
        if pid is None:
            raise Failed("the service is not visible here, so its memory can't be measured")
        seconds = max(self.options.idle, 1)
        await self.pause(min(SETTLE_SECONDS, seconds))
        looks: list[Footprint] = []
        began, before = perf_counter(), cpu_seconds(pid)
        while not looks or (perf_counter() - began < seconds and not self.stopped):
            own, *children = held(pid)
            looks.append(Footprint(own.rss, sum(one.pss for one in children), len(children)))
            await self.pause(LOOK_SECONDS)
        took, after = perf_counter() - began, cpu_seconds(pid)
        service, rest = (100 * (new - old) / took for new, old in zip(after, before, strict=True))
        found = Footprint(*map(statistics.median, zip(*looks, strict=True)))
        self.lines.append(
            f"idle: {took:.1f} s, CPU {service + rest:.2f} % of one core: the service {service:.2f} %, its children "
            f"{rest:.2f} %"
        )
        self.lines.append(
            f"memory: the service {found.service:.1f} MB RSS, {found.number:.0f} children {found.children:.1f} MB PSS"
        )
        return found

    def compare(self, footprints: list[Footprint]) -> None:
        """Report what a further cluster costs: the difference of both runs, divided by the clusters between them."""
        least, most = footprints
        each = [(new - old) / (len(self.names) - 1) for new, old in zip(most, least, strict=True)]
        children = f"{each[2]:.1f} children {each[1]:.1f} MB PSS"
        self.lines.append(f"memory of a further cluster: the service {each[0]:.1f} MB RSS, {children}")

    async def hang(self, ids: dict[str, list[str]]) -> None:
        """Measure the requests for the other clusters before and while the last one hangs."""
        *others, last = self.names
        every = itertools.chain.from_iterable(zip(*(ids[name] for name in others), strict=True))
        some = list(itertools.islice(every, FIRSTS))  # of all the others in turn
        await sample(partial(self.clients[0].do, "get"), some, CALLERS)
        done: list[dict[str, dict[str, Sample]]] = []  # of each round, by phase and work
        while len(done) < self.options.rounds:
            phases = {"before": await self.measure(some, ids[last])}
            try:
                self.hung.send_signal(signal.SIGSTOP)
                phases["at once"] = await self.measure(some, ids[last])
                await self.told(last, is_complete=False)
                phases["later"] = await self.measure(some, ids[last])
            finally:
                self.hung.send_signal(signal.SIGCONT)
            await self.told(last, is_complete=True)
            await self.reached(lambda checks: checks.get(last) == "ok")
            if self.stopped:
                break
            done.append(phases)
        if done:
            rounds = f"{len(done)} round{'s' * (len(done) > 1)}"
            self.lines.append(f"{last} hangs, {rounds}, load {os.getloadavg()[0]:.1f}; others, ms:")
            self.lines += [f"{work}: {compared(work, done)}" for work in WORKS]

    async def told(self, name: str, *, is_complete: bool) -> None:
        """Wait until the list says that it has all sandboxes of this cluster, or not. Raises Failed on timeout."""
        until = perf_counter() + 2 * GONE_SECONDS
        while not self.stopped:
            text, _ = await self.clients[0].send("list", "GET", "/api/sandboxes")
            if (name not in json.loads(text).get("incomplete", [])) == is_complete:
                return
            if perf_counter() > until:
                raise Failed(f"the list does not say whether {name} can be asked")
            await self.pause(0.5)

    async def measure(self, some: list[str], of_last: list[str]) -> dict[str, Sample]:
        """Measure all works once for sandboxes of other clusters, while few callers ask for those of the last."""
        service, last = self.clients[0], self.names[-1]
        count = max(self.options.sandboxes, CALLERS)
        whole = (one for one in self.ids if home(one, self.names) != last)
        new = list(itertools.islice(whole, count))
        items: dict[str, Iterable[str]] = {
            "get": itertools.islice(itertools.cycle(some), GETS),
            "list": [""] * LISTS,
            "create": new,
            "delete": new,
        }
        found: dict[str, Sample] = {}
        asking = [asyncio.create_task(self.ask_for_last(work, of_last)) for work in HUNG_EACH]
        try:
            for work in WORKS:
                until_stopped = itertools.takewhile(lambda _: not self.stopped, items[work])
                done = await sample(partial(service.do, work), until_stopped, 1 if work == "list" else CALLERS)
                self.failures.update(done.failures)
                found[work] = done if done.seconds else Sample([math.nan], 0.0, done.failures)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return found

    async def ask_for_last(self, work: str, ids: list[str]) -> None:
        """Ask for sandboxes of the last cluster, or for ones that only it knows not to exist, whatever the answers."""
        misses = (one for one in self.ids if home(one, self.names) == self.names[-1])
        async with asyncio.TaskGroup() as group:
            for one in misses if work == "miss" else itertools.cycle(ids):
                group.create_task(self.unanswered(one))
                await asyncio.sleep(HUNG_EACH[work])

    async def unanswered(self, sandbox_id: str) -> None:
        """Send a get whose answer does not matter."""
        with contextlib.suppress(Failed):
            await self.clients[0].send("get", "GET", f"/api/sandboxes/{sandbox_id}")


@contextlib.asynccontextmanager
async def devcluster(count: int, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run so many clusters in a process of their own, which is killed at the end. Raises Failed."""
    command = (sys.executable, "-m", "devcluster", "--clusters", str(count), "--directory", str(directory))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, preexec_fn=leash()
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        async with asyncio.timeout(START_SECONDS):
            if not await process.stdout.readline():
                raise Failed("devcluster has not started")
        yield process
    except TimeoutError as error:
        raise Failed("devcluster has not started in time") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def compared(work: str, done: Sequence[Mapping[str, Mapping[str, Sample]]]) -> str:
    """Return the p50 and p99 of a work in each phase, medians of all rounds, with the ratios to the first phase."""
    cells: list[str] = []
    first = math.nan
    for phase in done[0]:
        p50, p99 = (
            statistics.median(1000 * percentile(one[phase][work].seconds, percent) for one in done)
            for percent in (50, 99)
        )
        cells.append(f"{phase} p50 {p50:.1f}, p99 {p99:.1f}" + (f", ratio {p99 / first:.2f}" if cells else ""))
        first = p99 if len(cells) == 1 else first
    return "; ".join(cells)
