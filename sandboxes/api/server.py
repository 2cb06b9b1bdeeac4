"""Serves an application on a port, answers malformed HTTP in JSON, and shuts down gracefully. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from aiohttp import web
from pydantic_core import to_json

from sandboxes.addresses import EVERY_ADDRESS, LOOPBACK, authority
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError
from sandboxes.logs import AccessLogger

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Awaitable, Coroutine, Iterable, Iterator
    from typing import Literal

    from sandboxes.addresses import Address

logger = logging.getLogger(__name__)

# aiohttp's default is 8 KiB, but an invalid id must get 404 even if it is longer.
MAX_LINE_BYTES = 64 * 1024

# Host and port; for IPv6 also flow and scope.
_SocketAddress: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"

# SIGHUP: the terminal or the ssh session was closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# errno of a process or machine that has no descriptors or memory left.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

T = TypeVar("T")


class Stopped(Exception):
    """A signal ended the work before it was done."""


class JsonRequestHandler(web.RequestHandler):
    """Answers in JSON also for malformed HTTP, which never reaches the application."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer with the phrase of the status, and close the connection."""
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.info("malformed HTTP from %s: %s", request.remote, type(exc).__name__)
        else:
            logger.error("request from %s failed: %s", request.remote, message, exc_info=exc)
        body = to_json({"detail": HTTPStatus(status).phrase})
        response = web.Response(body=body, status=status, content_type="application/json")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer in JSON also what aiohttp refuses before the middlewares, such as an unknown `Expect`."""
        if isinstance(resp, web.HTTPException):
            body = to_json({"detail": HTTPStatus(resp.status).phrase})
            resp = web.Response(body=body, status=resp.status, content_type="application/json")
        return await super().finish_response(request, resp, start_time)


class LoopErrors:
    """The event loop's exception handler: writes at most one line a second when descriptors or memory run out.

    asyncio reports each connection that it can't accept then, a hundred at a time, with a traceback.
    """

    def __init__(self) -> None:
        self._next = 0.0
        self._unreported = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the error; see `asyncio.loop.call_exception_handler` for the context."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() < self._next:
            self._unreported += 1
        else:
            also = f" ({self._unreported} more since the last line)" if self._unreported else ""
            logger.error("%s: %s%s", context["message"], error.strerror, also)
            self._next, self._unreported = loop.time() + 1.0, 0


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[asyncio.Task[Literal[True]]]:
    """Yield a task that ends at the first signal that asks the process to end.

    A signal that is ignored stays so: `nohup` ignores SIGHUP.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, stop.set)
    stopped = loop.create_task(stop.wait())
    try:
        yield stopped
    finally:
        stopped.cancel()
        for number in handled:
            loop.remove_signal_handler(number)


async def until_stopped(work: Coroutine[None, None, T]) -> T:
    """Await the work and return its result; cancel it at the first signal that asks the process to end.

    Raises Stopped then, after the work has cleaned up, and any error of the work.
    """
    with _stop_on_signals() as stopped:
        task = asyncio.create_task(work)
        await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                raise Stopped
        return task.result()


async def serve(application: Awaitable[web.Application], address: Address) -> None:
    """Await the application, serve it until SIGINT, SIGTERM or SIGHUP, then let running requests finish.

    A signal before the application is ready cancels it. Raises StartupError if the address can't be bound, and any
    error of `application`.
    """
    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    with _stop_on_signals() as stopped:
        app = asyncio.ensure_future(application)
        await asyncio.wait([stopped, app], return_when=asyncio.FIRST_COMPLETED)
        if app.done():
            await _serve_until(stopped, app.result(), address)
        else:
            app.cancel()
            await asyncio.wait([app])


async def _serve_until(stopped: asyncio.Task[bool], app: web.Application, address: Address) -> None:
    runner = web.AppRunner(app, shutdown_timeout=DEADLINES.shutdown)
    await runner.setup()
    servers: list[asyncio.Server] = []
    try:
        servers = await _listen(runner, address)
        logger.info("listening on %s", urls_of(bound for server in servers for bound in server.sockets))
        await stopped
        logger.info("stopping")
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()
    logger.info("stopped")


async def _listen(runner: web.AppRunner, address: Address) -> list[asyncio.Server]:
    """Listen on every address of every host. Raises StartupError if one can't be bound."""
    manager = runner.server
    assert manager is not None  # noqa: S101 - the runner is set up
    loop = asyncio.get_running_loop()

    def handler() -> JsonRequestHandler:
        return JsonRequestHandler(
            manager, loop=loop, access_log_class=AccessLogger, max_line_size=MAX_LINE_BYTES, keepalive_timeout=75.0
        )

    sockets = await bind(address)
    return [await loop.create_server(handler, sock=bound) for bound in sockets]


async def bind(address: Address) -> list[socket.socket]:
    """Bind a socket for every address of every host; pass over a family that the machine lacks, with a line of the log.

    Raises StartupError if any other can't be bound, or none can.
    """
    hosts: dict[tuple[socket.AddressFamily, _SocketAddress], str] = {}
    with contextlib.ExitStack() as bound:
        sockets: list[socket.socket] = []
        try:
            for host in address.hosts:
                for family, sockaddr in await _resolve(host, address.port):
                    hosts.setdefault((family, sockaddr), host)
            for (family, sockaddr), host in hosts.items():
                try:
                    sockets.append(bound.enter_context(_bound(family, sockaddr)))
                except OSError as error:
                    if not _is_lacking(error, host):
                        raise
                    logger.info("not listening on %s: %s", authority(host, address.port), error.strerror)
        except OSError as error:
            place = authority(host, address.port)
            raise StartupError(f"Can't listen on {place}: {_why(error, address)}") from error
        if not sockets:
            raise StartupError(f"Can't listen on {address}: {address.host_variable} names no address of this machine.")
        bound.pop_all()
    return sockets


def urls_of(sockets: Iterable[socket.socket | TransportSocket]) -> str:
    """Return the URLs at which bound sockets can be reached, separated by commas."""
    return ", ".join(f"http://{authority(*one.getsockname()[:2])}" for one in sockets)


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, _SocketAddress]]:
    """Return the addresses of a host, each once. Raises OSError if it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except UnicodeError as error:  # a label that IDNA can't encode
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
    return list(dict.fromkeys((family, cast("_SocketAddress", sockaddr)) for family, _, _, _, sockaddr in found))


def _bound(family: socket.AddressFamily, sockaddr: _SocketAddress) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has sockets of its own. Without this, whether it is included depends on the machine.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(sockaddr)
    except BaseException:
        listening.close()
        raise
    return listening


def _is_lacking(error: OSError, host: str) -> bool:
    """Whether the machine lacks the address's family: then it has not even the addresses that every machine has."""
    return error.errno == errno.EAFNOSUPPORT or (
        error.errno == errno.EADDRNOTAVAIL and host in {*EVERY_ADDRESS, *LOOPBACK}
    )


def _why(error: OSError, address: Address) -> str:
    """Return the end of a sentence: what is wrong with the address, and which variable to change."""
    if error.errno == errno.EADDRINUSE:
        return f"it is taken. Set {address.port_variable} to another."
    if error.errno == errno.EACCES:
        return f"{os.strerror(errno.EACCES)}. Set {address.port_variable} to another."
    # No errno: asyncio could bind none of the host's addresses (since Python 3.12).
    if isinstance(error, socket.gaierror) or error.errno in {None, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"{address.host_variable} names no address of this machine."
    return f"{os.strerror(error.errno)}. Set {address.host_variable} to another."  # such as an IPv4 address in IPv6
