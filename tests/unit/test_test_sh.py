"""`test.sh` runs all static checks before the tests, and stops at one that fails. Its programs are stubs here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHECKS = ("ruff", "lint-imports", "mypy", "shellcheck", "hadolint")
# Notes its name, and fails if it is the one that is to fail.
PROGRAM = """#!/bin/sh
echo "${0##*/}" >> "$PROGRAMS"
[ "${0##*/}" != "$FAILS" ]
"""


def run_test_sh(project: Path, *arguments: str, fails: str = "") -> tuple[int, list[str]]:
    """Run it with stubs; return its exit code and the programs that ran, in order."""
    scripts, programs = project / "scripts", project / "venv" / "bin"
    scripts.mkdir(parents=True)
    programs.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "test.sh", scripts)
    (scripts / "venv.sh").write_text('VENV="$PWD/venv"\ninstall_requirements() { :; }\n')
    for name in (*CHECKS, "sphinx-build", "python"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    noted = project / "noted"
    environ = {"PATH": "/usr/bin:/bin", "PROGRAMS": str(noted), "FAILS": fails}
    command = [str(scripts / "test.sh"), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
    return done.returncode, noted.read_text().split()


@pytest.mark.parametrize("arguments", [(), ("--all",)])
def test_all_static_checks_run_before_the_tests(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    returncode, ran = run_test_sh(tmp_path, *arguments)
    assert returncode == 0
    assert ran[-1] == "python"
    assert set(CHECKS) <= set(ran[:-1])
    assert ("sphinx-build" in ran) is bool(arguments)


@pytest.mark.parametrize("fails", CHECKS)
def test_a_static_check_that_fails_stops_the_run_before_the_tests(tmp_path: Path, fails: str) -> None:
    returncode, ran = run_test_sh(tmp_path, fails=fails)
    assert returncode == 1
    assert "python" not in ran


def test_given_tests_run_without_static_checks(tmp_path: Path) -> None:
    assert run_test_sh(tmp_path, "tests/unit") == (0, ["python"])
