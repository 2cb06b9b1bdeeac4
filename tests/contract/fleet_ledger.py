"""The ledger of callers of several clusters: what was answered, and what the clusters have at the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from devcluster import Cluster
from sandboxes import objects as kube
from sandboxes.fleet.rendezvous import home
from tests.contract.ledger import CLUSTER_ERRORS, NAMESPACE, Call, Ledger
from tests.contract.service import URL
from tests.waiting import until

# Of ids that several callers use at once, with different wishes.
SHARED = "shared-"

# Seconds after which a replica that has not answered counts as hung. Its own deadlines are half as long, and less.
MOST_ANSWER = 90.0


@dataclass(frozen=True)
class Answer:
    """A response about one id, or a list.

    `clusters`: those that decide about the id: its home, those that a create has named, and where it is.
    """

    verb: str
    sandbox_id: str
    home: str
    clusters: frozenset[str]
    wishes: frozenset[str]
    status: int
    body: dict[str, Any]
    began: float
    over: float
    # Whether it is the first answer about the id.
    is_first: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether other callers use the id, too."""
        return self.sandbox_id.startswith(SHARED)

    def is_503_of(self, cluster: str) -> bool:
        """Whether the answer is that this cluster can't be asked."""
        return self.status == 503 and f"'{cluster}'" in str(self.body.get("detail"))


@dataclass(frozen=True)
class Wrong:
    """What is wrong at the end, by promise; all empty if nothing is."""

    lost: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    misreported: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stray_markers: list[str] = field(default_factory=list)


class FleetLedger(Ledger):
    """Calls replicas of one service with these clusters, by name, and records the responses.

    `names`: those by which ids have their home.
    """

    def __init__(self, clusters: dict[str, Cluster]) -> None:
        super().__init__(next(iter(clusters.values())))
        self.clusters = clusters
        self.names = tuple(clusters)
        self.answers: list[Answer] = []
        # Where the last create said that the sandbox is.
        self.on: dict[str, str] = {}
        self._wishes: dict[str, set[str]] = defaultdict(set)
        self._answered: set[str] = set()

    def session(self, base: str) -> aiohttp.ClientSession:
        """Return a session whose responses are recorded."""
        return aiohttp.ClientSession(
            base,
            connector=aiohttp.TCPConnector(limit=0),
            middlewares=(self._record,),
            timeout=aiohttp.ClientTimeout(total=None),  # _record has one
        )

    async def _record(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        _, sandbox_id, action = [*request.url.path.removeprefix(URL).split("/"), "", ""][:3]
        verb = action or {"GET": "get", "DELETE": "delete", "POST": "create"}[request.method]
        if not sandbox_id and verb == "get":
            verb = "list"
        if verb == "create":
            assert isinstance(request.body, aiohttp.Payload)
            asked = json.loads(await request.body.as_bytes())
            sandbox_id = asked["sandbox_id"]
            if "cluster" in asked:
                self._wishes[sandbox_id].add(asked["cluster"])
        began = time.monotonic()
        try:
            async with asyncio.timeout(MOST_ANSWER):
                response = await handler(request)
                body = json.loads(await response.read() or b"{}")
        except TimeoutError:
            self._misreported.append(f"{verb} {sandbox_id}: no answer within {MOST_ANSWER:g} s")
            raise
        if verb == "create" and response.status == 200:
            self.on[sandbox_id] = body["cluster"]
        home, clusters = ("", frozenset()) if verb == "list" else (self.home(sandbox_id), self._clusters_of(sandbox_id))
        wishes, over = frozenset(self._wishes[sandbox_id]), time.monotonic()
        is_first = sandbox_id not in self._answered
        self._answered.add(sandbox_id)
        self.answers.append(
            Answer(verb, sandbox_id, home, clusters, wishes, response.status, body, began, over, is_first)
        )
        return response

    def home(self, sandbox_id: str) -> str:
        """Return the id's home."""
        return home(sandbox_id, self.names)

    def was_used(self, sandbox_id: str) -> bool:
        """Whether a caller has created or deleted the id."""
        return bool(self._calls.get(sandbox_id))

    def _clusters_of(self, sandbox_id: str) -> frozenset[str]:
        on = {self.on[sandbox_id]} if sandbox_id in self.on else set()
        return frozenset({self.home(sandbox_id), *self._wishes[sandbox_id], *on})

    def since(self, began: float, verb: str) -> list[Answer]:
        """Return the answers to calls of this verb that began later."""
        return [one for one in self.answers if one.began >= began and one.verb == verb]

    def count(self, verb: str, status: int = 200, *, home: str = "", without: str = "") -> int:
        """Return the number of answers about ids with this home, or about those that one cluster has no part in."""
        return sum(
            answer.verb == verb
            and answer.status == status
            and home in ("", answer.home)
            and (not without or without not in answer.clusters)
            for answer in self.answers
        )

    async def use(self, session: aiohttp.ClientSession, sandbox_id: str, how: str) -> int:
        """Keep alive: `touch` or `renew`. Record a 404 of a present one."""
        before = self._is_there(sandbox_id)
        status = 0
        with suppress(aiohttp.ClientError, TimeoutError):
            body = {"ttl_seconds": 3600} if how == "renew" else {}
            async with session.post(f"{URL}/{sandbox_id}/{how}", json=body) as response:
                status = response.status
        self.statuses[how, status] += 1
        is_false = status == 404 and before and self._is_there(sandbox_id)
        if is_false or status not in {0, 200, 404, *CLUSTER_ERRORS}:
            self._misreported.append(f"{how} {sandbox_id}: {status}: {self._calls[sandbox_id]}")
        return status

    async def list_all(self, session: aiohttp.ClientSession, prefix: str) -> int:
        """List; record an error, and ids with this prefix that are missing or should be, unless it says incomplete."""
        ids = [one for one in self._calls if one.startswith(prefix)]
        there, gone = ({one for one in ids if check(one)} for check in (self._is_there, self._is_gone))
        on = dict(self.on)
        status, body = 0, {}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(URL) as response:
                status, body = response.status, await response.json()
        self.statuses["list", status] += 1
        if status != 200:
            if status:
                self._misreported.append(f"list: {status}: {body}")
            return status
        incomplete = set(body.get("incomplete", ()))
        listed = {one["sandbox_id"]: one["cluster"] for one in body["sandboxes"]}
        if len(listed) != len(body["sandboxes"]):
            self._misreported.append("list: an id twice")
        for one in sorted(there):
            if one not in listed and on[one] not in incomplete and self._is_there(one):
                self._misreported.append(f"list without {one}, incomplete: {incomplete}: {self._calls[one]}")
        for one in sorted(gone):
            if one in listed and listed[one] not in incomplete and self._is_gone(one):
                self._misreported.append(f"list with {one}, incomplete: {incomplete}: {self._calls[one]}")
        return status

    @contextmanager
    def others_delete(self, cluster: str) -> Iterator[None]:
        """Expect that all sandboxes of a cluster are gone after the block, but no others."""
        deletion = Call("delete", time.monotonic())
        for sandbox_id in self._calls:
            if cluster in self._clusters_of(sandbox_id):
                self._calls[sandbox_id].append(deletion)
        yield
        deletion.over = time.monotonic()

    def pods(self) -> dict[str, dict[str, str]]:
        """Return the uids of the Pods that are not terminating by id and cluster."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name, cluster in self.clusters.items():
            for pod in cluster.objects("Pod", NAMESPACE):
                if "deletionTimestamp" not in pod["metadata"]:
                    found[kube.get_labels(pod)[kube.ID_LABEL]][name] = pod["metadata"]["uid"]
        return found

    def _objects(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for kind in ("Pod", "Service"):
            for cluster in self.clusters.values():
                for obj in cluster.objects(kind, NAMESPACE):
                    if "deletionTimestamp" not in obj["metadata"]:
                        found[kube.get_labels(obj)[kube.ID_LABEL]][kind] = obj
        return found

    def _doubled(self) -> dict[str, list[str]]:
        return {sandbox_id: sorted(on) for sandbox_id, on in self.pods().items() if len(on) > 1}

    def _stray_markers(self) -> list[str]:
        """Return the markers that are not in the home of an id, or name a cluster that does not have its Pod."""
        pods = self.pods()
        stray = []
        for name, cluster in self.clusters.items():
            for obj in cluster.objects("ConfigMap", NAMESPACE):
                if not obj["metadata"]["name"].endswith("-elsewhere"):
                    continue
                sandbox_id, data = kube.get_labels(obj)[kube.ID_LABEL], obj["data"]
                if self.home(sandbox_id) != name or data["cluster"] not in pods[sandbox_id]:
                    stray.append(f"{sandbox_id} in {name}: {data}")
        return stray

    def _unmarked(self) -> list[str]:
        """Return the ids whose home does not say where they are."""
        return [
            sandbox_id
            for sandbox_id, on in self.pods().items()
            if (at := self.home(sandbox_id)) not in on
            and self.clusters[at].get("ConfigMap", NAMESPACE, f"sandbox-{sandbox_id}-elsewhere") is None
        ]

    def _unclean(self) -> set[str]:
        """Return the ids of which clean-up has something left to remove."""
        stray = {one.partition(" ")[0] for one in self._stray_markers()}
        return self._leftovers() | self._incomplete() | self._doubled().keys() | stray

    def _explained(self, sandbox_id: str) -> str:
        """Return what was asked about the id, and what each cluster has of it."""
        there = []
        for name, cluster in self.clusters.items():
            for kind in ("Pod", "Service", "ConfigMap"):
                for obj in cluster.objects(kind, NAMESPACE):
                    if kube.get_labels(obj).get(kube.ID_LABEL) == sandbox_id:
                        metadata = obj["metadata"]
                        keys = ("uid", "annotations", "creationTimestamp", "deletionTimestamp")
                        known = {key: metadata[key] for key in keys if key in metadata}
                        there.append(f"{kind} on {name}: {known | obj.get('data', {})}")
        return f"{sandbox_id}, at home on {self.home(sandbox_id)}: {self._calls[sandbox_id]}; {'; '.join(there)}"

    async def wrong(self, seconds: float) -> Wrong:
        """Wait for rollbacks and the rounds of the reaper, at most so long, and return what is wrong then."""
        with suppress(TimeoutError):
            await until(lambda: not self._unclean(), seconds, pause=0.5)
        objects = self._objects()
        lost = {one for one in self._calls if self._is_there(one) and not self._is_complete(one, objects.get(one, {}))}
        return Wrong(
            [self._explained(one) for one in sorted({*lost, *self._unmarked()})],
            [self._explained(one) for one in sorted(self._leftovers() | self._incomplete())],
            self._misreported,
            [self._explained(one) for one in sorted(self._doubled())],
            self._stray_markers(),
        )

    async def unlike_the_clusters(self, session: aiohttp.ClientSession) -> list[str]:
        """Return the ids about which a get, or the list, does not answer what the clusters have."""
        async with session.get(URL) as response:
            body = await response.json()
        listed = {one["sandbox_id"]: one["cluster"] for one in body["sandboxes"]}
        pods = self.pods()
        wrong = [f"incomplete: {body['incomplete']}"] if "incomplete" in body else []
        for sandbox_id in self._calls:
            there = next(iter(pods[sandbox_id]), None)
            async with session.get(f"{URL}/{sandbox_id}") as response:
                status, answer = response.status, await response.json()
            expected = (404, None) if there is None else (200, there)
            if (status, answer.get("cluster")) != expected or listed.get(sandbox_id) != there:
                wrong.append(f"{sandbox_id} is on {there}: {status} {answer}, listed: {listed.get(sandbox_id)}")
        return wrong
