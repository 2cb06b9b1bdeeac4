"""Replicas of a service with several clusters and callers at work, and what must hold during and after a fault."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from tests.audit import CLUSTERS
from tests.contract.fleet import FIELDS, NS, write
from tests.contract.fleet_ledger import SHARED, Answer, FleetLedger, Wrong
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.contract.service import URL, Provisioner, StartProvisioner
from tests.kubectl import SPEED
from tests.waiting import All, AtLeast, Nothing
from tests.waiting import until as until_soon

NAMES = ("east", "west", "north")
SETTINGS = {"REAPER_INTERVAL": "4", "REAPER_GRACE": "1", "LIVE_VIEW_MAX_AGE": "8", "ALLOW_FIELDS": FIELDS}
# After an error a caller waits a hundredth of what Retry-After says.
RETRY_AFTER = 0.05

# A busy machine takes its time, with all the processes of callers and clean-up. The error names what was missing.
PATIENCE = 180.0

marks = [
    pytest.mark.deadlines(
        settle_pause=0.5, clusters_poll=0.2, clusters_retry=0.2, clusters_answer=2.0, fleet_probe_most=1.0,
        watch_pauses=(0.1, 0.5, 1.0),
    ),
    pytest.mark.role(CLUSTERS),
    # 40 s on a machine of its own.
    pytest.mark.timeout(900),
]  # fmt: skip


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until `condition` is true; seldom enough to leave the time to services, clusters and callers."""
    await until_soon(condition, seconds, pause=0.1)


@dataclass
class Chaos:
    """Clusters by name, the file that lists them, the sessions of each replica, and the ledger of its callers."""

    clusters: dict[str, Cluster]
    path: Path
    ledger: FleetLedger
    seed: str
    start: Callable[[], Awaitable[None]]
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    replicas: list[Provisioner] = field(default_factory=list)
    # Clusters that no caller names.
    unwanted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Also those that the file does not list.
        self.all_clusters = self.clusters

    def write(self, **fields: dict[str, Any]) -> None:
        """Write the file, with these fields of the entries by name."""
        new = write(self.path.with_suffix(".new"), self.clusters, **fields)
        new.replace(self.path)

    async def list_only(self, *names: str, **fields: dict[str, Any]) -> None:
        """Write the file with these clusters only, and wait until all replicas have it."""
        self.clusters = {name: self.all_clusters[name] for name in names}
        self.write(**fields)
        await until(self._unlike("/api/clusters lists", lambda clusters: list(clusters) == list(names)))
        self.ledger.clusters, self.ledger.names = dict(self.clusters), names

    async def becomes(self, name: str, state: str) -> None:
        """Wait until all replicas say that the cluster is in this state."""
        await until(self._unlike(f"{name} is not {state}", lambda clusters: clusters.get(name) == state))

    def _unlike(self, what: str, is_right: Callable[[dict[str, str]], bool]) -> Nothing:
        """Return a condition: each replica's states of the clusters by name are right."""

        async def find() -> list[dict[str, str]]:
            said = []
            for session in self.sessions:
                async with session.get("/api/clusters") as response:
                    said.append({one["name"]: one["state"] for one in (await response.json())["clusters"]})
            return [one for one in said if not is_right(one)]

        return Nothing(what, find)

    async def kill(self, number: int) -> None:
        """Kill the process of a replica; its callers go to the others."""
        self.sessions.pop(number)
        process = self.processes.pop(number)
        process.kill()
        await process.wait()

    @asynccontextmanager
    async def callers(self, number: int = 4, rivals: int = 2, prefix: str = "a") -> AsyncIterator[None]:
        """Run callers during the block; then let them finish. `rivals` use the same ids."""
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for caller in range(number):
                group.create_task(self._call(f"{prefix}{caller}", done))
            for rival in range(rivals):
                group.create_task(self._contend(rival, done))
            try:
                yield
            finally:
                done.set()

    async def _call(self, caller: str, done: asyncio.Event) -> None:
        """Create, read, keep alive, list and delete own sandboxes, at one replica: live views may be behind others."""
        choice = random.Random(f"{self.seed}-{caller}")  # noqa: S311 - no secret
        session = choice.choice(self.sessions)
        ledger, prefix = self.ledger, f"s{self.seed}-{caller}-"
        for count in itertools.count():
            if done.is_set():
                return
            if session not in self.sessions:  # its replica was killed
                session = choice.choice(self.sessions)
            sandbox_id = f"{prefix}{count}"
            wish = self._wish(choice)
            if await ledger.create(session, sandbox_id, **wish) != 200:
                await asyncio.sleep(RETRY_AFTER)
            await ledger.get(session, sandbox_id)
            if choice.random() < 0.4:
                await ledger.use(session, sandbox_id, choice.choice(["touch", "renew"]))
            if choice.random() < 0.2:
                await ledger.list_all(session, prefix)
            if choice.random() < 0.6:
                await ledger.delete(session, sandbox_id)
                await ledger.get(session, sandbox_id)
                if choice.random() < 0.3 and not done.is_set():
                    await ledger.create(session, sandbox_id, **wish)

    async def _contend(self, rival: int, done: asyncio.Event) -> None:
        """Create and delete a few ids that others use, too, with different wishes, at any replica."""
        choice = random.Random(f"{self.seed}-rival-{rival}")  # noqa: S311 - no secret
        while not done.is_set():
            session = choice.choice(self.sessions)
            sandbox_id = f"{SHARED}{self.seed}-{choice.randrange(4)}"
            if choice.random() < 0.6:
                status = await self.ledger.create(session, sandbox_id, **self._wish(choice))
            else:
                status = await self.ledger.delete(session, sandbox_id)
            if status != 200:
                await asyncio.sleep(RETRY_AFTER)

    def _wish(self, choice: random.Random) -> dict[str, str]:
        named = choice.choice([name for name in self.ledger.names if name not in self.unwanted])
        return {"cluster": named} if choice.random() < 0.3 else {}

    def more(self, by: int, verb: str = "create", status: int = 200, **about: str) -> AtLeast:
        """Return a condition: this many more such answers than now; see FleetLedger.count."""
        what = " ".join([f"{verb}: {status}", *(f"{key} {value}" for key, value in about.items())])
        before = self.ledger.count(verb, status, **about)
        return AtLeast(what, lambda: self.ledger.count(verb, status, **about) - before, by)

    async def name(self, cluster: str) -> int:
        """Create a new sandbox that names this cluster, which is its home, too; return the status."""
        ids = (f"s{self.seed}-named-{number}" for number in itertools.count())
        sandbox_id = next(one for one in ids if self.ledger.home(one) == cluster and not self.ledger.was_used(one))
        return await self.ledger.create(self.sessions[0], sandbox_id, cluster=cluster)

    async def at_work(self, by: int = 3) -> None:
        """Wait until so many creates of ids of each home have succeeded."""
        await until(All([self.more(by, home=name) for name in self.ledger.names]))

    def new_since(self, began: float) -> list[Answer]:
        """Return the answers to the first creates of ids that no other caller uses, if they began later."""
        creates = self.ledger.since(began, "create")
        return [one for one in creates if not one.is_shared and one.is_first]

    async def lacks(self, *names: str) -> None:
        """Wait until the lists of all replicas say `incomplete` with these names, or nothing for none."""

        async def find() -> list[list[str]]:
            said = []
            for session in self.sessions:
                async with session.get(URL) as response:
                    said.append((await response.json()).get("incomplete", []))
            return [one for one in said if one != list(names)]

        await until(Nothing(f"incomplete is not {list(names)}", find))

    async def go_on_without(self, away: str) -> None:
        """Assert what holds while a cluster is away, for as long as the callers need for a number of requests."""
        await self.lacks(away)
        began = time.monotonic()
        conditions = [
            self.more(8, without=away),
            self.more(3, "delete", without=away),
            self.more(8, "get", without=away),
            self.more(2, "list"),
            self.more(3, status=503, home=away),
            self.more(1, "delete", status=503, home=away),
        ]
        await until(All(conditions))
        over = time.monotonic()
        wrong = [
            f"{answer.verb} {answer.sandbox_id} of {sorted(answer.clusters)}: {answer.status} {_short(answer.body)}"
            for answer in self.ledger.answers
            if answer.began >= began and answer.over <= over and not _is_right_without(away, answer)
        ]
        assert not wrong, wrong

    async def assert_nothing_lost(self) -> None:
        """Assert that the service works with all its clusters, and that nothing was lost, doubled or left behind."""
        await self.lacks()
        for name in self.ledger.names:
            await until(Nothing(f"create, get, delete of an id of {name}", lambda name=name: self._failing(name)))  # type: ignore[misc]
        wrong = await self.ledger.wrong(PATIENCE)
        assert wrong == Wrong(), f"{wrong}\n{self.ledger.statuses}"
        for session in self.sessions:
            await until(
                Nothing(
                    "answers unlike the clusters",
                    lambda session=session: self.ledger.unlike_the_clusters(session),  # type: ignore[misc]
                )
            )

    async def _failing(self, home: str) -> list[int]:
        """Create, read and delete a sandbox whose home is this cluster, with a replica each; return the statuses.

        None if they are as they must be.
        """
        sandbox_id = next(one for n in itertools.count() if self.ledger.home(one := f"afterwards-{n}") == home)
        sessions = itertools.cycle(self.sessions)
        made = await self.ledger.create(next(sessions), sandbox_id)
        read = await self.ledger.get(next(sessions), sandbox_id)
        deleted = await self.ledger.delete(next(sessions), sandbox_id)
        statuses = [made, read, deleted]
        return [] if statuses == [200, 200, 200] else statuses


def _short(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key in {"detail", "incomplete", "cluster"}}


def _is_right_without(away: str, answer: Answer) -> bool:
    """Whether the answer is what a caller may get while this cluster is away."""
    if answer.verb == "list":
        # Another one may be slow on a busy machine.
        return answer.status == 200 and away in answer.body.get("incomplete", ())
    if away not in answer.clusters:
        # Several callers of one id may be told to try again.
        return answer.status in {200, 404} or (answer.is_shared and answer.status == 503)
    if answer.home == away:
        # What is known to be on another cluster, or there by a live view that is still in force, is answered.
        is_known = answer.status == 200 and answer.verb not in {"create", "delete"}
        return is_known or answer.is_503_of(away)
    # It has named the cluster that is away, or is there; or it is not, and never was.
    return answer.status in {200, 404, 429} or answer.is_503_of(away)


StartChaos = Callable[..., Awaitable[Chaos]]


@pytest.fixture
async def start_chaos(
    tmp_path: Path, cluster: Cluster, start_provisioner: StartProvisioner, request: pytest.FixtureRequest
) -> AsyncIterator[StartChaos]:
    """Return a function that starts clusters, and replicas of the service with them.

    CHAOS_SEED in the environment sets another seed of the callers' choices.
    """
    seed = os.environ.get("CHAOS_SEED", "1")
    print(f"CHAOS_SEED={seed} {request.node.nodeid}")  # noqa: T201 - pytest shows it if the test fails
    async with AsyncExitStack() as stack:

        async def start(
            number: int = 2, replicas: int = 1, *, listed: int = 3, as_processes: bool = False, **variables: str
        ) -> Chaos:
            clusters = {NAMES[0]: cluster}
            for name in NAMES[1:number]:
                clusters[name] = await stack.enter_async_context(Cluster(directory=tmp_path / name, speed=SPEED))
            for one in clusters.values():
                one.make_namespace(NS)
            first = dict(list(clusters.items())[:listed])
            path = write(tmp_path / "clusters.yaml", first)
            ledger = FleetLedger(dict(first))

            async def add() -> None:
                settings = {**SETTINGS, "CLUSTERS_FILE": str(path), **variables}
                if as_processes:
                    base, process = await _process(stack, tmp_path, settings)
                    chaos.processes.append(process)
                else:
                    provisioner = await start_provisioner(**settings)
                    chaos.replicas.append(provisioner)
                    base = str(provisioner.client.make_url("/"))
                chaos.sessions.append(await stack.enter_async_context(ledger.session(base)))

            chaos = Chaos(clusters, path, ledger, seed, add)
            chaos.clusters = first
            for _ in range(replicas):
                await add()
            return chaos

        yield start


async def _process(
    stack: AsyncExitStack, tmp_path: Path, settings: dict[str, str]
) -> tuple[str, asyncio.subprocess.Process]:
    """Start the service as a process of its own; return its base URL, and the process."""
    port = free_port()
    directory = tmp_path / f"replica-{port}"
    directory.mkdir()
    environ = environment(directory, PORT=str(port), HOST="127.0.0.1", NODE_HOST="127.0.0.1", **settings)
    process = await stack.enter_async_context(running(*PROVISIONER, environ=environ, log=directory / "log"))
    await until(healthy(port))
    return f"http://127.0.0.1:{port}/", process
