"""The Roles of manifests/deploy, compared with the requests of the service in all tests.

Each contract and end-to-end test fails if its service exceeds its Role (`within_the_role`, tests/audit.py). At the end
of a run of all contract tests, tests/audit.py reports granted rights that were never used. These tests cover both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.audit import Entry
from tests.audit import NOT_GRANTED, PRODUCTION, ROLES, Asked, beyond, never_asked_for, role
from tests.conftest import ROOT
from tests.contract.service import StartProvisioner, create
from tests.kubectl import Kubectl

AGENT = "kubectl/v1.37.1"


def entry(verb: str, resource: str, namespace: str = "deer-flow", *, user: str = "", path: str = "") -> Entry:
    return Entry(user, AGENT, verb, "", resource, namespace, path)


CONFTEST = """
import pytest
from tests.audit import ASKED, HAS_ALL, Asked, pytest_sessionfinish, pytest_testnodedown

def pytest_collection_modifyitems(config): config.stash[HAS_ALL] = {has_all}

@pytest.fixture
def asked(pytestconfig): return pytestconfig.stash.setdefault(ASKED, Asked()).in_all
"""
HALVES = """
import pytest
from tests.audit import NOT_GRANTED, ROLES, role

RIGHTS = sorted({right for folder in ROLES for right in role(folder)} | NOT_GRANTED.keys(), key=str)
NEVER = {never}

@pytest.mark.parametrize("half", [0, 1])
def test_one_half(half, asked): asked |= {right for right in RIGHTS[half::2] if right.resource != NEVER}
"""


def run_of_halves(tmp_path: Path, *options: str, never: str = "", has_all: bool = True) -> tuple[int, str]:
    """Run two tests that together use every granted right except those of `never`; return exit code and stdout."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("{has_all}", str(has_all)))
    (tmp_path / "test_halves.py").write_text(HALVES.replace("{never}", repr(never)))
    command = (sys.executable, "-m", "pytest", "-rf", "-p", "no:cacheprovider", *options)
    environ = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


ONE_PROCESS, TWO_WORKERS = (), ("-p", "xdist", "-n2", "--maxschedchunk=1")


@pytest.mark.slow
def test_a_run_whose_workers_together_use_every_granted_right_passes(tmp_path: Path) -> None:
    returncode, stdout = run_of_halves(tmp_path, *TWO_WORKERS)
    assert returncode == 0
    assert f"{2 + len(ROLES) + 1} passed" in stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [ONE_PROCESS, TWO_WORKERS], ids=["one process", "two workers"])
def test_a_run_with_an_unused_granted_right_fails(tmp_path: Path, options: tuple[str, ...]) -> None:
    returncode, stdout = run_of_halves(tmp_path, *options, never="services")
    assert returncode == 1
    assert f"{len(ROLES)} failed, 3 passed" in stdout
    summary = stdout.partition("short test summary info")[2]
    assert "FAILED tests/audit.py::everything in the Role of . is asked for by some test" in summary
    assert "no test has the service ask for: create services" in stdout


def test_an_unused_exception_is_reported() -> None:
    rights = {right for folder in ROLES for right in role(folder)}
    assert {name: never for name, never in never_asked_for(rights).items() if never} == {
        "NOT_GRANTED": set(NOT_GRANTED)
    }


@pytest.mark.slow
def test_a_partial_run_reports_no_unused_right(tmp_path: Path) -> None:
    returncode, stdout = run_of_halves(tmp_path, never="services", has_all=False)
    assert returncode == 0
    assert "2 passed" in stdout


@pytest.mark.parametrize("folder", ROLES)
def test_no_granted_right_is_also_an_exception(folder: str) -> None:
    assert not role(folder) & NOT_GRANTED.keys()


@pytest.mark.parametrize(
    "too_much",
    [
        entry("deletecollection", "pods"),
        entry("get", "pods", ""),
        entry("get", "pods", "default"),
        entry("create", "pods/exec"),
        entry("update", "pods"),
        entry("get", "secrets"),
        entry("get", "", "", path="/metrics"),
        entry("get", "", "", path="/api/v1/nodes"),
        entry("post", "", "", path="/apis/example.com/v1"),
    ],
    ids=str,
)
def test_a_request_that_no_role_allows_is_reported(too_much: Entry) -> None:
    assert all(beyond([too_much], role(folder)) for folder in ROLES)


@pytest.mark.parametrize(
    "allowed",
    [entry("get", "pods"), entry("get", "", "", path="/apis"), entry("get", "", "", path="/openapi/v3")],
    ids=str,
)
def test_granted_and_public_requests_pass(allowed: Entry) -> None:
    assert beyond([allowed], role(".")) == []


@pytest.mark.role(PRODUCTION)
async def test_a_service_that_exceeds_its_role_fails_its_test(
    start_provisioner: StartProvisioner, audited: Asked
) -> None:
    with (
        pytest.raises(AssertionError, match=r"grant: create networkpolicies.networking.k8s.io in deer-flow, patch net"),
        audited.within("."),
    ):
        await start_provisioner(SANDBOX_NETWORK_POLICY="isolated")


@pytest.mark.slow
async def test_requests_of_the_tests_own_kubectl_are_not_audited(
    start_provisioner: StartProvisioner, kubectl: Kubectl, audited: Asked
) -> None:
    with audited.within("."):
        assert (await kubectl("get", "nodes,secrets", "--all-namespaces")).stderr
        assert (await kubectl("delete", "pods", "--all", "-n", "default")).rc == 0
        await create(await start_provisioner())
