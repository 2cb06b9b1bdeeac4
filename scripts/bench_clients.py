"""The base of each run of scripts/bench.py: clients of the service and of the API server, sampling, clean-up."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import aiohttp

from sandboxes.objects import THREAD_ANNOTATION

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterable, Sequence

REQUEST_SECONDS = 30.0  # a caller's timeout for a create; other requests have shorter ones
GONE_SECONDS = 60.0  # time for deleted sandboxes to disappear
DELETES_A_SECOND = 20.0  # slowest rate of deletes that is accepted; many sandboxes get more time
CLEANERS = 8  # few concurrent deletes: leftovers may exist because the service was overloaded
ID, A_SANDBOX = "bench-id", re.compile(r"bench-[0-9a-f]{8}-\d+")
MARK = "bench-mark"

Works: TypeAlias = dict[str, list[tuple[str, str, str]]]
"""The requests of each work: method, path, body. ID is replaced by the sandbox's id, MARK by the text of a change."""

SERVICE: Works = {
    "health": [("GET", "/health", "")],
    "create": [("POST", "/api/sandboxes", json.dumps({"sandbox_id": ID, "thread_id": "bench"}))],
    "get": [("GET", f"/api/sandboxes/{ID}", "")],
    "list": [("GET", "/api/sandboxes", "")],
    "delete": [("DELETE", f"/api/sandboxes/{ID}", "")],
}


class Failed(Exception):
    """A request or a run failed; the text is shown to the user."""


@dataclass
class Client:
    """A client of one server, with keep-alive. `made`: sandboxes that may exist; `alive`: those that it created."""

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
        """Do a work and return its seconds. Raises Failed if a request fails or an answer lacks an expected sandbox."""
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
        """Send the requests of a work in turn. Return the sandboxes that each answer names, and the total seconds."""
        named, total = [], 0.0
        for method, path, body in self.works[work]:
            text, seconds = await self.send(work, method, path.replace(ID, sandbox_id), body.replace(ID, sandbox_id))
            named.append(set(A_SANDBOX.findall(text)))
            total += seconds
        return named, total

    async def send(self, work: str, method: str, path: str, body: str = "") -> tuple[str, float]:
        """Send one request of a work. Return the body of the answer and the seconds. Raises Failed."""
        media_type = {"Content-Type": "application/apply-patch+yaml" if method == "PATCH" else "application/json"}
        started = perf_counter()
        try:
            async with self.session.request(
                method, self.base + path, data=body or None, headers=media_type, allow_redirects=False
            ) as response:
                text = await response.text(errors="replace")
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise Failed(f"{self.name}: no answer to {work}: {str(error) or type(error).__name__}") from error
        seconds = perf_counter() - started
        if response.status not in ((200, 202, 404) if method == "DELETE" else (200, 201)):
            said = {401: "set API_KEY to its key, or renew the kubeconfig"}.get(response.status, text[:200])
            raise Failed(f"{self.name}: {work} was answered {response.status}: {said}")
        return text, seconds


def direct_works() -> Works:
    """Return the works at an API server: on the objects that the service creates. Raises Failed."""
    program = str(Path(__file__).resolve().parent.parent / "provisioner.py")
    rendered = output_of(sys.executable, program, "render", "--sandbox-id", ID, "--thread-id", "bench")
    works: Works = {
        "health": [("GET", "/version", "")],
        "create": [],
        "get": [],
        "list": [],
        "delete": [],
        "change": [],
    }
    for one in (item for item in json.loads(rendered)["items"] if item["kind"] in {"Pod", "Service"}):
        every = f"/api/v1/namespaces/{one['metadata']['namespace']}/{one['kind'].lower()}s"
        path = f"{every}/{one['metadata']['name']}"
        works["create"].append(("PATCH", f"{path}?fieldManager=provisioner&force=true", json.dumps(one)))
        works["get"].append(("GET", path, ""))
        works["list"].append(("GET", f"{every}?labelSelector=app%3Ddeer-flow-sandbox", ""))
        works["delete"].append(("DELETE", path, ""))
        if one["kind"] == "Pod":
            metadata = {"name": one["metadata"]["name"], "annotations": {THREAD_ANNOTATION: MARK}}
            change = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
            works["change"].append(("PATCH", f"{path}?fieldManager=bench&force=true", json.dumps(change)))
    return works


def direct_client(kubeconfig: str, made: set[str], works: Works | None = None) -> Client:
    """Return a client of the current context's API server, for `works` (default: those of `direct_works`).

    It always verifies the certificate, runs no credential plugin, and sends no token over plain HTTP. Raises Failed.
    """
    works = works or direct_works()
    kubectl = os.environ.get("KUBECTL") or str(Path(sys.executable).parent / "kubectl")
    flags = (f"--kubeconfig={kubeconfig}", "--raw", "--minify", "--flatten", "--output=json")
    view = json.loads(output_of(kubectl, "config", "view", *flags))
    cluster, user = view["clusters"][0]["cluster"], (view["users"] or [{"user": {}}])[0]["user"]
    data = {name: base64.b64decode(text) for name, text in (cluster | user).items() if name.endswith("-data")}
    tls = ssl.create_default_context(cadata=data.get("certificate-authority-data", b"").decode() or None)
    if "client-certificate-data" in data:
        with tempfile.NamedTemporaryFile(prefix="bench-") as file:  # ssl only reads files; mode 600
            file.write(data["client-certificate-data"] + b"\n" + data["client-key-data"])
            file.flush()
            tls.load_cert_chain(file.name)
    base = cluster["server"].rstrip("/")
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user and base.startswith("https:") else {}
    return Client("direct", works, base, headers, tls, made)


def output_of(*command: str) -> str:
    """Run a program and return its stdout. Raises Failed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise Failed(f"this failed, run it to see why: {' '.join(command)}")
    return done.stdout


class Sample(NamedTuple):
    """One phase of one round: latencies of good answers in seconds, their rate per second, and counted failures."""

    seconds: Sequence[float]
    rate: float
    failures: Counter[str]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile by nearest rank: the smallest value that `percent` % of `values` don't exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


async def sample(call: Callable[[str], Awaitable[float]], items: Iterable[str], callers: int) -> Sample:
    """Call `call` for each item, `callers` at once. `call` returns its latency in seconds, or raises Failed."""
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


class Run:
    """One run. `clients`: the provisioner's and, with --direct, the API server's. Failures survive a stop."""

    def __init__(self, clients: list[Client], options: argparse.Namespace) -> None:
        self.clients, self.options, self.stopped = clients, options, ""
        self.prefix = f"bench-{secrets.token_hex(4)}-"
        self.ids = (f"{self.prefix}{number}" for number in itertools.count())
        self.failures: Counter[str] = Counter()

    def stop(self, why: str) -> None:
        """Start nothing more; running requests may finish."""
        self.stopped = self.stopped or why

    def cleaners(self) -> Sequence[Client]:
        """Return the clients by which `clear` deletes, in this order."""
        return self.clients

    async def clear(self) -> set[str]:
        """Delete all sandboxes that may exist, and wait until no server lists them. Return those still left."""
        left = set(self.clients[0].made)
        deadline = monotonic() + GONE_SECONDS + len(left) / DELETES_A_SECOND
        while True:
            for client in self.cleaners():
                items = itertools.takewhile(lambda _: monotonic() < deadline, sorted(left))
                await sample(partial(client.do, "delete"), items, CLEANERS)
            left = set(self.clients[0].made)
            for client in self.cleaners():
                with suppress(Failed):  # `made` still has those that were not deleted
                    named, _ = await client.ask("list")
                    left |= {one for one in set().union(*named) if one.startswith(self.prefix)}
            if not left or monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)
