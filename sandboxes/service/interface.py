"""What the routes call: the operations on the sandboxes of one cluster, or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sandboxes.models.clusters import DoubledSandbox
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import (
        Diagnostics,
        Reconciliation,
        SandboxList,
        SandboxResponse,
        TemplateResponse,
        WaitedResponse,
    )
    from sandboxes.models.urls import SandboxUrl
    from sandboxes.service.events import Subscriber
    from sandboxes.service.listing import ListQuery


class Feed(Protocol):
    """A stream of events; see EventBroker."""

    async def join(self) -> Subscriber:
        """Return a new subscriber, whose first event is `state`. Call `leave` when done."""
        ...

    def leave(self, reader: Subscriber) -> None:
        """Remove the subscriber."""
        ...


class Sandboxes(Protocol):
    """The operations behind the routes. Raises only errors of `errors.py`; see SandboxService."""

    @property
    def feed(self) -> Feed:
        """The events of all sandboxes."""
        ...

    def templates(self) -> list[TemplateResponse]:
        """Return the public description of each template, sorted by name."""
        ...

    async def create(self, request: CreateRequest) -> SandboxResponse:
        """Create the sandbox, or return the existing one."""
        ...

    async def get(self, sandbox_id: str) -> SandboxResponse:
        """Return the sandbox; raises SandboxNotFound on proof only."""
        ...

    async def wait(self, answer: SandboxResponse, until: float, *, is_made: bool = False) -> WaitedResponse:
        """Return the sandbox once it is usable or can't become usable, or at `until` (loop time)."""
        ...

    async def list_matching(self, query: ListQuery | None = None) -> SandboxList:
        """Return the sandboxes that match the query, or one page of them."""
        ...

    async def doubled(self) -> list[DoubledSandbox]:
        """Return the sandboxes that several clusters have; waits for a cluster a moment only."""
        ...

    async def delete(self, sandbox_id: str, *, force: bool = False) -> str | None:
        """Delete the sandbox, or prove that there is none; return a warning, if any."""
        ...

    async def renew(self, sandbox_id: str, ttl_seconds: int) -> SandboxResponse:
        """Set the expiry to now + `ttl_seconds`."""
        ...

    async def touch(self, sandbox_id: str) -> SandboxResponse:
        """Record a use of the sandbox."""
        ...

    async def make_url(self, sandbox_id: str, *, port: int | None = None, ttl_seconds: int | None = None) -> SandboxUrl:
        """Return a URL of the sandbox by the gateway: for another port, or with an end."""
        ...

    async def revoke_urls(self, sandbox_id: str) -> SandboxResponse:
        """Make all URLs of the sandbox by the gateway invalid; return the sandbox with its new one."""
        ...

    async def diagnostics(self, sandbox_id: str) -> Diagnostics:
        """Return the diagnosis of the sandbox."""
        ...

    async def reconcile(self, sandbox_id: str) -> Reconciliation:
        """Return which Pod the sandbox has, or that it has none."""
        ...

    async def release(self) -> None:
        """Answer all waiting callers and end all event streams at once; call it at shutdown."""
        ...
