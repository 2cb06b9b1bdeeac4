"""What is measured: the provisioner's REST API. Each call checks its answer and returns its latency in seconds."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from sandboxes.models.responses import SandboxAnswer, SandboxList
from scripts.bench.client import BenchError, Client
from scripts.bench.figures import PROVISIONER

if TYPE_CHECKING:
    from collections.abc import Iterable

API_KEY_HEADER = "X-API-Key"
HEALTH_PATH = "/health"

# Every sandbox of the benchmark has this owner.
THREAD_ID = "bench"

_PATH = "/api/sandboxes"


class Target(Protocol):
    """Something that makes sandboxes. `made` are those that may be there: each was asked for, and not yet deleted."""

    name: str
    made: set[str]

    def prepare(self, sandbox_ids: Iterable[str]) -> None:
        """Do whatever a create needs and is not to be timed."""

    async def open_connections(self, count: int) -> None:
        """Have so many connections open."""

    async def create(self, sandbox_id: str) -> float:
        """Make a sandbox."""

    async def get(self, sandbox_id: str) -> float:
        """Read a sandbox; it must be the one that was made."""

    async def list_all(self, sandbox_ids: frozenset[str]) -> float:
        """Read all sandboxes; these must be among them."""

    async def delete(self, sandbox_id: str) -> float:
        """Delete a sandbox."""

    async def listed(self) -> set[str]:
        """Return the ids of all sandboxes that are there, the benchmark's and others'."""


class ProvisionerTarget:
    """The REST API of a running provisioner."""

    name = PROVISIONER

    def __init__(self, client: Client) -> None:
        self._client = client
        self.made: set[str] = set()
        self._urls: dict[str, str] = {}

    def prepare(self, sandbox_ids: Iterable[str]) -> None:
        """Nothing: a request's body is small."""

    async def open_connections(self, count: int) -> None:
        """Have so many connections open."""
        await self._client.open_connections(count, HEALTH_PATH)

    async def health(self) -> float:
        """Ask whether the process is up: the least that a request can cost here."""
        answer = await self._client.send("GET", HEALTH_PATH)
        if answer.json() != {"status": "ok"}:
            raise answer.wrong()
        return answer.seconds

    async def create(self, sandbox_id: str) -> float:
        """Make a sandbox; its answer must be that sandbox, with a URL."""
        body = json.dumps({"sandbox_id": sandbox_id, "thread_id": THREAD_ID}).encode()
        self.made.add(sandbox_id)
        answer = await self._client.send("POST", _PATH, body, "application/json")
        sandbox = answer.read_as(SandboxAnswer)
        if sandbox.sandbox_id != sandbox_id or not sandbox.sandbox_url:
            raise answer.wrong()
        self._urls[sandbox_id] = sandbox.sandbox_url
        return answer.seconds

    async def get(self, sandbox_id: str) -> float:
        """Read a sandbox; it must have the URL that its create answered."""
        answer = await self._client.send("GET", f"{_PATH}/{sandbox_id}")
        sandbox = answer.read_as(SandboxAnswer)
        if sandbox.sandbox_id != sandbox_id or sandbox.sandbox_url != self._urls.get(sandbox_id):
            raise answer.wrong()
        return answer.seconds

    async def list_all(self, sandbox_ids: frozenset[str]) -> float:
        """Read all sandboxes; these must be among them, and the count must be right."""
        answer = await self._client.send("GET", _PATH)
        listing = answer.read_as(SandboxList)
        found = {sandbox.sandbox_id for sandbox in listing.sandboxes}
        if not sandbox_ids <= found or listing.count != len(listing.sandboxes):
            raise answer.wrong()
        return answer.seconds

    async def delete(self, sandbox_id: str) -> float:
        """Delete a sandbox."""
        answer = await self._client.send("DELETE", f"{_PATH}/{sandbox_id}")
        if answer.json() != {"ok": True, "sandbox_id": sandbox_id}:
            raise answer.wrong()
        self.made.discard(sandbox_id)
        return answer.seconds

    async def listed(self) -> set[str]:
        """Return the ids of all sandboxes that can be used."""
        answer = await self._client.send("GET", _PATH)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise BenchError("The provisioner answered 401: set API_KEY to its PROVISIONER_API_KEY.")
        return {sandbox.sandbox_id for sandbox in answer.read_as(SandboxList).sandboxes}
