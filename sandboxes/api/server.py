"""Serves an application on a port, answers malformed HTTP in JSON, and shuts down gracefully. Knows no route."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic_core import to_json

from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError
from sandboxes.logs import AccessLogger

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sandboxes.variables import Address

logger = logging.getLogger(__name__)

# aiohttp's default is 8 KiB, but an invalid id must get 404 even if it is longer.
MAX_LINE_BYTES = 64 * 1024

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


async def serve(application: Awaitable[web.Application], address: Address) -> None:
    """Await the application, serve it until SIGINT or SIGTERM, then let running requests finish.

    A signal before the application is ready cancels it. Raises StartupError if the address can't be bound, and any
    error of `application`.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        stopped = loop.create_task(stop.wait())
        app = asyncio.ensure_future(application)
        await asyncio.wait([stopped, app], return_when=asyncio.FIRST_COMPLETED)
        if app.done():
            await _serve_until(stopped, app.result(), address)
        else:
            app.cancel()
            await asyncio.wait([app])
    finally:
        stopped.cancel()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _serve_until(stopped: asyncio.Task[bool], app: web.Application, address: Address) -> None:
    runner = web.AppRunner(app, shutdown_timeout=DEADLINES.shutdown)
    await runner.setup()
    try:
        server = await _listen(runner, address)
        logger.info("listening on http://%s:%d", address.host, address.port)
        await stopped
        logger.info("stopping")
        server.close()
    finally:
        await runner.cleanup()
    logger.info("stopped")


async def _listen(runner: web.AppRunner, address: Address) -> asyncio.Server:
    manager = runner.server
    assert manager is not None  # noqa: S101 - the runner is set up
    loop = asyncio.get_running_loop()

    def handler() -> JsonRequestHandler:
        return JsonRequestHandler(
            manager, loop=loop, access_log_class=AccessLogger, max_line_size=MAX_LINE_BYTES, keepalive_timeout=75.0
        )

    try:
        return await loop.create_server(handler, address.host, address.port)
    except OSError as error:
        raise StartupError(f"Can't listen on {address.host}:{address.port}: {_why(error, address)}") from error


def _why(error: OSError, address: Address) -> str:
    """Return the end of a sentence: what is wrong with the address, and which variable to change."""
    if error.errno == errno.EADDRINUSE:
        return f"it is taken. Set {address.port_variable} to another."
    if error.errno == errno.EACCES:
        return f"{os.strerror(errno.EACCES)}. Set {address.port_variable} to another."
    # No errno: asyncio could bind none of the host's addresses (since Python 3.12).
    if isinstance(error, socket.gaierror) or error.errno in {None, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"{address.host_variable} names no address of this machine."
    return f"{os.strerror(error.errno)}."
