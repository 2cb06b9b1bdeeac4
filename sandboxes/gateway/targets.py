"""Finds the Pod for a token, and where to dial it: from the views alone; waits for their changes."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from sandboxes.access import tokens
from sandboxes.access.addresses import problem_of
from sandboxes.access.tokens import Grant, Subject
from sandboxes.gateway.failures import Refusal, not_dialled, not_found
from sandboxes.gateway.upstream import Address
from sandboxes.status.reasons import has_ended, readiness_of

if TYPE_CHECKING:
    from sandboxes.access.tokens import Keys
    from sandboxes.gateway.interface import Candidate, Pods
    from sandboxes.objects import KubeObject

# A token is checked against it where no sandbox has the id, so that this takes as long.
_NO_SUBJECT = Subject("", "", "", "", 0, "")


class Permitted(NamedTuple):
    """A sandbox's Pod, and what the token permits there."""

    candidate: Candidate
    grant: Grant


class Targets:
    """Answers for tokens. `wait`: SANDBOX_GATEWAY_WAIT."""

    def __init__(self, pods: Pods, keys: Keys, wait: float) -> None:
        self._pods = pods
        self._keys = keys
        self._wait = wait
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        # By id, then by uid: the Pod as it was when its address was read, and the address.
        self._places: dict[str, dict[str, tuple[KubeObject, str]]] = {}

    def permitted(self, sandbox_id: str, token: str) -> Permitted:
        """Return the Pod for the token. Raises Refusal: 503 while it may be one that a view lacks, else 404."""
        found = self.find(sandbox_id, token)
        if found is not None:
            return found
        if not self._pods.is_usable:
            raise Refusal(
                "not-usable", "The gateway does not know the sandboxes: its view of the cluster is not up to date"
            )
        raise not_found()

    def find(self, sandbox_id: str, token: str) -> Permitted | None:
        """Return the Pod for the token, or None."""
        now = time.time()
        found = None
        candidates = self._pods.find(sandbox_id)
        for candidate in candidates:
            grant = tokens.check(token, candidate.subject, self._keys, now)
            if grant is not None:
                found = Permitted(candidate, grant)
        if not candidates:
            tokens.check(token, _NO_SUBJECT, self._keys, now)
        return found

    async def address(self, sandbox_id: str, token: str, permitted: Permitted) -> Address:
        """Return where to dial; wait for a sandbox that is not ready.

        Raises Refusal: 502 for a Pod in its node's network, or with an address that no Pod has, 503 if it is not ready
        in time, 404 if the token ends.
        """
        place = self._place(sandbox_id, permitted)
        if place is not None:
            return place
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait
        while place is None:
            left = until - loop.time()
            if left <= 0 or has_ended(permitted.candidate.pod):
                raise _not_ready(permitted.candidate.pod)
            await self._change(sandbox_id, left)
            permitted = self.permitted(sandbox_id, token)
            place = self._place(sandbox_id, permitted)
        return place

    def on_changed(self, sandbox_id: str) -> None:
        """Read the sandbox's address anew, and wake the requests that wait for it."""
        self.forget(sandbox_id)
        for waiting in self._waiting.get(sandbox_id, ()):
            if not waiting.done():
                waiting.set_result(None)

    def forget(self, sandbox_id: str) -> None:
        """Read the sandbox's address anew at the next request."""
        self._places.pop(sandbox_id, None)

    async def _change(self, sandbox_id: str, seconds: float) -> None:
        """Wait until the sandbox changes, at most so many seconds."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group = self._waiting.setdefault(sandbox_id, set())
        group.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            group.discard(waiting)
            if not group and self._waiting.get(sandbox_id) is group:
                del self._waiting[sandbox_id]

    def _place(self, sandbox_id: str, permitted: Permitted) -> Address | None:
        candidate, grant = permitted
        uid, pod = candidate.subject.uid, candidate.pod
        known = self._places.get(sandbox_id, {}).get(uid)
        if known is not None and known[0] is pod:
            return Address(sandbox_id, uid, known[1], grant.port)
        host = _host_of(candidate)
        if host is None:
            return None
        self._places.setdefault(sandbox_id, {})[uid] = (pod, host)
        return Address(sandbox_id, uid, host, grant.port)


def _host_of(candidate: Candidate) -> str | None:
    """Return the address of a Pod that is ready, or None. Raises Refusal for one that is never dialled.

    A Pod that has ended keeps its address in its status while another one may have it.
    """
    pod = candidate.pod
    if pod["spec"].get("hostNetwork"):
        raise Refusal(
            "host-network",
            "The gateway does not dial this sandbox: its Pod has hostNetwork, so its address is the node's",
        )
    host: str = (pod.get("status") or {}).get("podIP") or ""
    if not readiness_of(pod)[0]:
        return None
    try:
        address = ip_address(host)
        problem = problem_of(host, may_be_loopback=candidate.may_be_loopback)
    except ValueError:
        return None
    if problem is not None:
        raise not_dialled(problem)
    return str(address)


def _not_ready(pod: KubeObject) -> Refusal:
    _, reason, message = readiness_of(pod)
    said = ": ".join(part for part in (reason, message) if part) or "it has no address yet"
    return Refusal("not-ready", f"The sandbox is not ready: {said}")
