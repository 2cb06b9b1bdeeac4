"""Markers for secrets, and hooks that fail each test whose output contains one; tests/conftest.py registers them.

MARKER is the secret in kubeconfigs of tests; the token of each devcluster starts with TOKEN_PREFIX. The hooks search
the log, as the service formats it, the output of tests, the bodies of responses, and the output of the service's
processes (`look_at`).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster.credentials import TOKEN_PREFIX
from sandboxes import logs

MARKER = "th1s-must-st4y-h1dden"
LET_OUT: list[str] = []
"""Places where the output of the current test contains a marker."""


def _marks(text: str) -> Iterator[bytes]:
    """Yield the text in plain, in base64 at each alignment within a longer text, and as Go prints bytes."""
    data = text.encode()
    yield data
    for before in range(3):
        whole = 3 * ((before + len(data)) // 3)
        encoded = base64.b64encode(b"\0" * before + data[: whole - before])
        yield encoded[4 if before else 0 :]
    yield " ".join(str(byte) for byte in data).encode()


MARKS = tuple(mark for text in (MARKER, TOKEN_PREFIX) for mark in _marks(text))


def shows(output: str | bytes) -> bool:
    """Whether the output contains a marker."""
    found = output.encode(errors="replace") if isinstance(output, str) else output
    return any(mark in found for mark in MARKS)


def look_at(where: str, output: str | bytes | Path) -> None:
    """Search output of the service; the current test fails if it contains a marker."""
    if shows(output.read_bytes() if isinstance(output, Path) else output):
        LET_OUT.append(where)


class _LookAtLines(logging.Handler):
    """Searches records as the service formats them; skips the formatting of records without a marker."""

    def emit(self, record: logging.LogRecord) -> None:
        if shows(logging.Formatter().format(record)):
            look_at(f"a line of the logger {record.name}", self.format(record))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Search everything that is logged during the test."""
    LET_OUT.clear()
    handler = _LookAtLines()
    handler.setFormatter(logs.formatter(as_json=True))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        return (yield)
    finally:
        root.removeHandler(handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Search the captured output, and fail the test if any output contains a marker."""
    report = yield
    for title, content in report.sections:
        # Log sections have pytest's format instead of the service's: see _LookAtLines.
        if "log" not in title and title.endswith(str(report.when)):
            look_at(title, content)
    if LET_OUT:
        report.outcome = "failed"
        places = ", ".join(sorted(set(LET_OUT)))
        report.longrepr = f"{item.nodeid} lets out a secret of a kubeconfig, in: {places}"
        # Pytest would print the marker again.
        report.sections = []
        LET_OUT.clear()
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Search the body of each response, and the output that a test takes from pytest's capture."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    read = aiohttp.ClientResponse.read

    async def read_and_look(response: aiohttp.ClientResponse) -> bytes:
        body = await read(response)
        look_at(f"the response to {response.method} {response.url.path}", body)
        return body

    patch.setattr(aiohttp.ClientResponse, "read", read_and_look)
    take: Callable[[Any], Any] = pytest.CaptureFixture.readouterr

    def take_and_look(capture: Any) -> Any:
        taken = take(capture)
        for where, output in zip(("stdout", "stderr"), taken, strict=True):
            look_at(where, output)
        return taken

    patch.setattr(pytest.CaptureFixture, "readouterr", take_and_look)


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests() -> Iterator[None]:
    """Remove the secrets that the log masks at the end of each test."""
    yield
    logs.SOURCES.clear()
