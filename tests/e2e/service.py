"""Runs the service as a process, and calls its REST API."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.marker import look_at

URL = "/api/sandboxes"


@dataclass(frozen=True)
class Response:
    """The status, headers and JSON of a response."""

    status: int
    headers: Any
    body: Any


@dataclass(frozen=True)
class Service:
    """A running service."""

    base: str
    environ: dict[str, str]
    log: Path

    def call(self, method: str, path: str, body: object = None) -> Response:
        """Send a request and return the response."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return _response(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return _response(error.code, error.headers, error.read())

    def create(self, sandbox_id: str, **fields: object) -> dict[str, Any]:
        """Create a sandbox and return the response's body; fails the test if the status is not 200."""
        answer = self.call("POST", URL, {"sandbox_id": sandbox_id, **fields})
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.body
        return body

    def get(self, sandbox_id: str) -> Response:
        """Get a sandbox."""
        return self.call("GET", f"{URL}/{sandbox_id}")

    def delete(self, sandbox_id: str) -> Response:
        """Delete a sandbox."""
        return self.call("DELETE", f"{URL}/{sandbox_id}")

    def is_running(self, sandbox_id: str) -> bool:
        """Whether the status of the sandbox is Running."""
        return bool(self.get(sandbox_id).body.get("status") == "Running")


def _response(status: int, headers: Any, body: bytes) -> Response:
    look_at("a response", body)
    return Response(status, headers, json.loads(body))


def answers(url: str) -> bool:
    """Whether a sandbox responds with 200 at its URL."""
    try:
        with urllib.request.urlopen(f"{url}/v1/sandbox", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def start(environ: dict[str, str], directory: Path) -> Iterator[Service]:
    """Run `provisioner.py` until the end of the block. HOME is the directory, unless `environ` has another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"HOME": str(directory), **environ, "PORT": str(port), "TMPDIR": str(directory)}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, str(ROOT / "provisioner.py")], env=environ, stderr=output)
    service = Service(f"http://127.0.0.1:{port}", environ, log)
    try:
        _wait_until_healthy(service, process)
        yield service
    finally:
        process.terminate()
        process.wait(timeout=40)
        look_at("the log", log)


def _wait_until_healthy(service: Service, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, service.log.read_text()
        try:
            if service.call("GET", "/health").status == 200:
                return
        except OSError:
            assert time.monotonic() < end, service.log.read_text()
        time.sleep(0.1)
