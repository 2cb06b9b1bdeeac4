"""A marker for secret places, and what fails each test that lets it out; tests/conftest.py makes its hooks known.

MARKER stands in kubeconfigs of tests wherever a secret stands, TOKEN_PREFIX in the token of each devcluster. Looked
through are: each line of the log, as the service renders it; what a test prints; the bodies of answers; and what
processes of the service write (`look_at`).
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
"""Where the test that runs has let it out."""


def _marks(text: str) -> Iterator[bytes]:
    """Yield the text as it stands, in base64 wherever in a longer text it begins, and as Go prints bytes."""
    data = text.encode()
    yield data
    for before in range(3):
        whole = 3 * ((before + len(data)) // 3)
        encoded = base64.b64encode(b"\0" * before + data[: whole - before])
        yield encoded[4 if before else 0 :]
    yield " ".join(str(byte) for byte in data).encode()


MARKS = tuple(mark for text in (MARKER, TOKEN_PREFIX) for mark in _marks(text))


def shows(output: str | bytes) -> bool:
    """Whether a marker is in it."""
    found = output.encode(errors="replace") if isinstance(output, str) else output
    return any(mark in found for mark in MARKS)


def look_at(where: str, output: str | bytes | Path) -> None:
    """Look through what came out of the service; the test that runs fails if a marker is in it."""
    if shows(output.read_bytes() if isinstance(output, Path) else output):
        LET_OUT.append(where)


class _LookAtLines(logging.Handler):
    """Looks at records as the service's own log shows them; only those with a marker in them are rendered."""

    def emit(self, record: logging.LogRecord) -> None:
        if shows(logging.Formatter().format(record)):
            look_at(f"a line of the logger {record.name}", self.format(record))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Look at all that is logged in the meantime."""
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
    """Look at what was printed, and fail the test if anything let a marker out."""
    report = yield
    for title, content in report.sections:
        # What is logged is shown here as pytest does it, and nobody else: see _LookAtLines.
        if "log" not in title and title.endswith(str(report.when)):
            look_at(title, content)
    if LET_OUT:
        report.outcome = "failed"
        places = ", ".join(sorted(set(LET_OUT)))
        report.longrepr = f"{item.nodeid} lets out a secret of a kubeconfig, in: {places}"
        # Pytest would show it again.
        report.sections = []
        LET_OUT.clear()
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Look at the body of each answer, and at what a test takes from pytest's capture."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    read = aiohttp.ClientResponse.read

    async def read_and_look(response: aiohttp.ClientResponse) -> bytes:
        body = await read(response)
        look_at(f"the answer to {response.method} {response.url.path}", body)
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
    """Let the log forget at the end of a test what it has to hide."""
    yield
    logs.SOURCES.clear()
