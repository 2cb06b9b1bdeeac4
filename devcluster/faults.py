"""Injects failures and canned answers for tests.

`Cluster.faults` injects failures of any server or network: refuse, hang, be slow, answer 429 or 503, cut, restart.
`Cluster.kmock` with `once` is for specific answers, such as a recorded refusal. Both precede the API, which serves all
other requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import kmock
from aiohttp import web

from devcluster.errors import ApiError, expired
from devcluster.objects import Json, JsonValue
from devcluster.port import Port
from devcluster.requests import verb_of
from devcluster.responses import CutResponse, WatchResponse, respond, with_warning
from devcluster.store import compact
from devcluster.watches import Watches

Serve = Callable[[kmock.Request], Awaitable[web.StreamResponse]]

_STATUS = {
    HTTPStatus.TOO_MANY_REQUESTS: (
        "TooManyRequests",
        "the server has received too many requests and has asked us to try again later",
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: ("InternalError", "Internal error occurred: devcluster was told to fail"),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "ServiceUnavailable",
        "the server is currently unable to handle the request",
    ),
    HTTPStatus.GATEWAY_TIMEOUT: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


def once(*answers: JsonValue) -> Callable[[], JsonValue]:
    """Return a callable that answers the next matching requests, one with each of `answers`; later ones go to the API.

    `cluster.kmock["get /version"] << 503 << once({"message": "not now"})`
    """
    left: Iterator[JsonValue] = iter(answers)
    return lambda: next(left, StopIteration)  # kmock takes the exception as a payload, but not when it is raised


@dataclass(slots=True)
class Fault:
    """A failure, and the requests that it affects."""

    verb: str = ""
    """Kubernetes' verb (`get`, `list`, `watch`, `create`, `patch`, `delete`, …); empty for any."""

    resource: str = ""
    """The plural (`pods`); empty for any, and for paths without a resource, such as discovery."""

    times: int | None = None
    """Number of requests; None for all until `clear`."""

    hangs: bool = False
    seconds: float = 0
    code: int = 0
    retry_after: int | None = None
    after_bytes: int | None = None
    warning: str = ""

    def matches(self, request: kmock.Request) -> bool:
        """Return whether the fault affects this request."""
        plural = request.resource.plural if request.resource else ""
        return self.verb in ("", verb_of(request)) and self.resource in ("", plural)

    def answer(self) -> web.Response:
        """Return the error answer."""
        details = None if self.retry_after is None else {"retryAfterSeconds": self.retry_after}
        error = _error(self.code, details)
        response = respond(compact(error.status()), error.code)
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        return response


def _error(number: int, details: Json | None = None) -> ApiError:
    code = HTTPStatus(number)
    reason, message = _STATUS.get(code, ("", code.description or code.phrase))
    return ApiError(code, reason, message, details)


class Rules:
    """The active faults."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._cleared = asyncio.Event()

    def add(self, fault: Fault) -> None:
        """Add a fault after the existing ones."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults, and drop the connections of hanging requests."""
        self._faults.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def serve(
        self, request: kmock.Request, transport: asyncio.Transport | None, serve: Serve
    ) -> web.StreamResponse:
        """Serve a request, applying the first fault that matches it."""
        fault = self._take(request)
        if fault is None:
            return await serve(request)
        if fault.hangs:
            await self._cleared.wait()
            if transport is not None:
                transport.abort()
            await asyncio.Event().wait()  # until we are cancelled, since the connection is gone
        await asyncio.sleep(fault.seconds)
        if fault.code:
            return fault.answer()
        response = await serve(request)
        if fault.warning:
            with_warning(response, fault.warning)
        if fault.after_bytes is not None:
            return _cut(response, fault.after_bytes)
        return response

    def _take(self, request: kmock.Request) -> Fault | None:
        fault = next((fault for fault in self._faults if fault.matches(request)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._faults.remove(fault)
        return fault


def _cut(response: web.StreamResponse, after_bytes: int) -> web.StreamResponse:
    if isinstance(response, WatchResponse):
        response.cut_after = after_bytes
        return response
    assert isinstance(response, web.Response)  # noqa: S101 - there are only these two
    return CutResponse(response, after_bytes)


class Faults:
    """Injects failures into the whole server, or into some requests.

    `verb`, `resource` and `times` select requests: `slow(2, verb="patch", resource="pods", times=1)`. Without `times` a
    fault lasts until `clear()`. If several match a request, the oldest applies. Seconds are of the wall clock, since
    kubectl waits.
    """

    def __init__(self, rules: Rules, port: Port, watches: Watches) -> None:
        self._rules = rules
        self._port = port
        self._watches = watches

    def clear(self) -> None:
        """Remove all faults."""
        self._rules.clear()
        self._port.deaf = False
        self._port.drop_unheard()
        self._port.open()
        self.release_watches()

    def refuse(self) -> None:
        """Close the port until `clear`: drop connections, and refuse new ones."""
        self._port.close()

    def hang(self, *, verb: str = "", resource: str = "", times: int | None = None, open_watches: bool = False) -> None:
        """Accept connections, or matching requests, and never answer. `clear` drops them.

        Open watches continue, or with `open_watches` become silent until `clear`.
        """
        if open_watches:
            self.silence_watches(resource)
        self._rules.add(Fault(verb, resource, times, hangs=True))
        self._port.deaf = not (verb or resource or times)

    def slow(self, seconds: float, *, verb: str = "", resource: str = "", times: int | None = None) -> None:
        """Delay each request by `seconds` before it is processed."""
        self._rules.add(Fault(verb, resource, times, seconds=seconds))

    def answer(
        self,
        code: int,
        *,
        retry_after: int | None = None,
        verb: str = "",
        resource: str = "",
        times: int | None = None,
    ) -> None:
        """Answer with a status code and its `Status` only. With `retry_after`, kubectl retries."""
        self._rules.add(Fault(verb, resource, times, code=code, retry_after=retry_after))

    def warn(self, text: str, *, verb: str = "", resource: str = "", times: int | None = None) -> None:
        """Process the request, and add a warning, which kubectl prints (`apply-pod-security-warning`)."""
        self._rules.add(Fault(verb, resource, times, warning=text))

    def cut(self, after_bytes: int = 0, *, verb: str = "", resource: str = "", times: int | None = None) -> None:
        """Process the request, and cut the connection after `after_bytes` of the answer's body.

        With 0, not even the head is sent. A watch is cut when its events reach `after_bytes`.
        """
        self._rules.add(Fault(verb, resource, times, after_bytes=after_bytes))

    def silence_watches(self, resource: str = "") -> None:
        """Hold back all events and the end of open watches, of one resource (`pods`) or all; connections stay open.

        Later watches are not affected; use `hang(verb="watch")` for those.
        """
        for watch in self._watches.open(resource):
            watch.silence()

    def release_watches(self, resource: str = "") -> None:
        """Send the events held back by `silence_watches`, and continue. `clear` does the same."""
        for watch in self._watches.open(resource):
            watch.release()

    def cut_watches(self, resource: str = "") -> None:
        """Cut the connections of open watches, silent or not; `Cluster.end_watches` ends them cleanly."""
        for watch in self._watches.open(resource):
            watch.cut()

    def expire_watches(self, resource: str = "") -> None:
        """End open watches with 410 as an ERROR event. Versions up to now become too old to watch from or list at."""
        self._watches.forget(resource)
        for watch in self._watches.open(resource):
            watch.fail(expired("The resourceVersion for the provided watch is too old."))

    def fail_watches(self, code: int = 500, resource: str = "") -> None:
        """End open watches with an ERROR event of this code. Resource versions stay valid."""
        for watch in self._watches.open(resource):
            watch.fail(_error(code))

    async def restart(self, seconds: float = 0.2, *, forget: bool = False) -> None:
        """Close the port and all connections for `seconds`. Objects and resource versions are kept.

        With `forget`, earlier versions become too old to watch from: 410 Expired.
        """
        self._port.close()
        if forget:
            self._watches.forget()
        await asyncio.sleep(seconds)
        self._port.open()
