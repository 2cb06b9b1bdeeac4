"""What each run of scripts/bench.py is made of: the clients of the service and of the API server, and cleaning up."""

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

REQUEST_SECONDS = 30.0  # a caller gives a create as much, and everything else less
GONE_SECONDS = 60.0  # how long deleted sandboxes may take to be gone
DELETES_A_SECOND = 20.0  # the least that a server is taken to manage: many sandboxes have longer to be gone
CLEANERS = 8  # few at once: what is left may be there because the service could not keep up
ID, A_SANDBOX = "bench-id", re.compile(r"bench-[0-9a-f]{8}-\d+")
MARK = "bench-mark"

Works: TypeAlias = dict[str, list[tuple[str, str, str]]]
"""For each work its requests, with ID for the sandbox's and MARK for what a change writes: method, path, body."""

SERVICE: Works = {
    "health": [("GET", "/health", "")],
    "create": [("POST", "/api/sandboxes", json.dumps({"sandbox_id": ID, "thread_id": "bench"}))],
    "get": [("GET", f"/api/sandboxes/{ID}", "")],
    "list": [("GET", "/api/sandboxes", "")],
    "delete": [("DELETE", f"/api/sandboxes/{ID}", "")],
}


class Failed(Exception):
    """A request, or a run, that failed; its text is for a person."""


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
            text, seconds = await self.send(work, method, path.replace(ID, sandbox_id), body.replace(ID, sandbox_id))
            named.append(set(A_SANDBOX.findall(text)))
            total += seconds
        return named, total

    async def send(self, work: str, method: str, path: str, body: str = "") -> tuple[str, float]:
        """Send one request of a work; returns the text of the answer, and the seconds. Raises Failed."""
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


def direct_client(kubeconfig: str, made: set[str]) -> Client:
    """Return a client of the current context's API server, with the objects that the service makes. Raises Failed.

    The server's certificate is always checked, no credential plugin is run, and no token is sent in the clear.
    """
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


class Sample(NamedTuple):
    """One phase of one round: the latencies of good answers in seconds, their rate, and how the others failed."""

    seconds: Sequence[float]
    rate: float
    failures: Counter[str]


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


class Run:
    """One run at `clients`, the provisioner and, after it, direct; what failed is there however it ends."""

    def __init__(self, clients: list[Client], options: argparse.Namespace) -> None:
        self.clients, self.options, self.stopped = clients, options, ""
        self.prefix = f"bench-{secrets.token_hex(4)}-"
        self.ids = (f"{self.prefix}{number}" for number in itertools.count())
        self.failures: Counter[str] = Counter()

    def stop(self, why: str) -> None:
        """Begin nothing more; what is under way may end."""
        self.stopped = self.stopped or why

    def cleaners(self) -> Sequence[Client]:
        """Return by which clients `clear` deletes, one after the other."""
        return self.clients

    async def clear(self) -> set[str]:
        """Delete what may be there, and wait until no server lists it; returns what is left when time is up."""
        left = set(self.clients[0].made)
        deadline = monotonic() + GONE_SECONDS + len(left) / DELETES_A_SECOND
        while True:
            for client in self.cleaners():
                items = itertools.takewhile(lambda _: monotonic() < deadline, sorted(left))
                await sample(partial(client.do, "delete"), items, CLEANERS)
            left = set(self.clients[0].made)
            for client in self.cleaners():
                with suppress(Failed):  # what was not deleted is in `made`
                    named, _ = await client.ask("list")
                    left |= {one for one in set().union(*named) if one.startswith(self.prefix)}
            if not left or monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)
