"""The search for the marker in the output of all tests finds it, and fails the test."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.marker import MARKER, shows

LEAKS = """
import logging, sys, pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sandboxes import logs
from sandboxes.masking import forms_of
from tests.marker import MARKER, look_at

def test_stdout(): print(f"it is {MARKER}")
def test_stderr(): print(f"it is {MARKER}", file=sys.stderr)
def test_taken(capsys):
    print(MARKER)
    capsys.readouterr()
def test_log(): logging.getLogger("sandboxes.x").warning("it is %s", MARKER)
def test_traceback():
    try: raise ValueError(MARKER)
    except ValueError: logging.getLogger("sandboxes.x").exception("failed")
def test_file(tmp_path):
    (tmp_path / "log").write_text(f"a line: {MARKER}")
    look_at("a log", tmp_path / "log")
@pytest.fixture
def teardown():
    yield
    print(MARKER)
def test_fixture(teardown): pass
async def test_answer():
    async def answer(_): return web.Response(text=MARKER)
    app = web.Application()
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client:
        await (await client.get("/")).text()
def test_clean_hidden():
    logs.hide_from("x", lambda: forms_of([MARKER]))
    logging.getLogger("sandboxes.x").warning("it is %s", MARKER)
def test_forgotten(): logging.getLogger("sandboxes.x").warning("it is %s", MARKER)
def test_clean(): print("nothing")
"""
HOOKS = "no_secrets_of_other_tests, pytest_configure, pytest_runtest_makereport, pytest_runtest_protocol"
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def test_every_leak_of_the_marker_fails_its_test_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "conftest.py").write_text(f"from tests.marker import {HOOKS}\n")
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    command = (sys.executable, "-m", "pytest", "-rfEp", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider")
    environ = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    summary = done.stdout.partition("short test summary info")[2].splitlines()
    outcomes = {(line.split("::")[1].split()[0], line.split(maxsplit=1)[0]) for line in summary if "::" in line}
    leaking = ("stdout", "stderr", "taken", "log", "traceback", "file", "answer", "forgotten")
    assert outcomes == {
        *((f"test_{name}", "FAILED") for name in leaking),
        *((f"test_{name}", "PASSED") for name in ("clean", "clean_hidden", "fixture")),
        ("test_fixture", "ERROR"),
    }
    assert "test_fixture lets out a secret of a kubeconfig, in: Captured stdout teardown" in done.stdout
    assert not shows(done.stdout + done.stderr)


@pytest.mark.parametrize("before", ["", "x", "xx", "xxx"])
def test_the_marker_is_found_in_base64_and_among_bytes(before: str) -> None:
    text = f"{before}{MARKER}{before}".encode()
    assert shows(base64.b64encode(text))
    assert shows(f"[{' '.join(str(byte) for byte in text)}]")
    assert not shows(base64.b64encode(before.encode() * 30))


async def test_the_token_of_every_devcluster_is_known_and_unique() -> None:
    async with Cluster() as first, Cluster() as second:
        assert shows(first.token)
        assert shows(first.kubeconfig.read_text())
        assert first.token != second.token
        assert len(first.token) > 40
