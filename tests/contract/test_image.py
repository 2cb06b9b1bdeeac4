"""The conditions of the image: another user, only /tmp writable, and the image's command line."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.processes import free_port, healthy
from tests.contract.service import KUBECTL, until
from tests.image import copied_into_the_image, image_command, image_environment

UID = 4711

pytestmark = [
    pytest.mark.skipif(
        os.getuid() != 0, reason="only root can change the user; CI's image job does the same in a container"
    ),
    pytest.mark.slow,
]


def shared_interpreter() -> list[str]:
    """Return a Python of this version that every user may run; skip the test without one."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if not Path(candidate).exists():
            continue
        try:
            subprocess.run(
                [candidate, "-c", "import aiohttp, pydantic, yaml"],
                env={"PYTHONPATH": sysconfig.get_path("purelib")},
                user=UID,
                group=UID,
                capture_output=True,
                check=True,
            )
        except (PermissionError, subprocess.CalledProcessError):
            continue
        return [candidate]
    pytest.skip(
        f"no Python {version} here that user {UID} may run with our packages; "
        "CI's image job does the same in a container"
    )


@pytest.fixture
def tmp() -> Iterator[Path]:
    """A folder whose `tmp` is the only place that the other user may write to."""
    directory = Path(tempfile.mkdtemp(prefix="image-test-"))
    directory.chmod(0o755)
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def app(tmp: Path) -> Path:
    """The content of the image's /app, not writable."""
    folder = tmp / "app"
    folder.mkdir()
    for name in copied_into_the_image():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def environment(tmp: Path, kubeconfig: Path, port: int) -> dict[str, str]:
    assert image_environment()["LISTEN_HOST"] == "0.0.0.0,::"
    return {
        **image_environment(),
        "LISTEN_HOST": "127.0.0.1",
        "LISTEN_PORT": str(port),
        # The tests may run in a Pod.
        "ALLOW_UNAUTHENTICATED": "true",
        "HOME": str(tmp / "tmp"),
        "TMPDIR": str(tmp / "tmp"),
        "PATH": os.defpath,
        "KUBECTL": str(KUBECTL),
        "NODE_HOST": "127.0.0.1",
        "KUBECONFIG_PATH": str(kubeconfig),
        # in the image the packages are in Python's own path
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }


def readable_kubectl(tmp: Path) -> Path:
    copy = tmp / "kubectl"
    shutil.copy(KUBECTL, copy)
    copy.chmod(0o755)
    return copy


async def test_the_service_runs_as_another_user_with_only_tmp_writable(cluster: Cluster, tmp: Path, app: Path) -> None:
    kubeconfig = tmp / "config"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    kubeconfig.chmod(0o600)
    os.chown(kubeconfig, UID, UID)
    port = free_port()
    environ = {**environment(tmp, kubeconfig, port), "KUBECTL": str(readable_kubectl(tmp))}
    assert image_command()[0] == "python"
    with (tmp / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *shared_interpreter(),
            *image_command()[1:],
            cwd=app,
            env=environ,
            user=UID,
            group=UID,
            extra_groups=[],
            stdout=log,
            stderr=log,
        )
    try:
        await until(healthy(port))
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/api/sandboxes"
            async with session.post(url, json={"sandbox_id": "a"}) as response:
                assert response.status == 200, await response.text()
            async with session.get(f"{url}/a") as response:
                assert response.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0, (tmp / "log").read_text()
    assert list((tmp / "tmp").iterdir()) == []
    written = [path for path in app.rglob("*") if path.stat().st_uid == UID]
    assert written == []


async def test_an_unreadable_kubeconfig_stops_the_start_with_its_owner_and_mode(
    cluster: Cluster, tmp: Path, app: Path
) -> None:
    kubeconfig = tmp / "config"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    kubeconfig.chmod(0o600)
    os.chown(kubeconfig, 1234, 5678)
    environ = {**environment(tmp, kubeconfig, free_port()), "KUBECTL": str(readable_kubectl(tmp))}
    process = await asyncio.create_subprocess_exec(
        *shared_interpreter(),
        *image_command()[1:],
        cwd=app,
        env=environ,
        user=UID,
        group=UID,
        extra_groups=[],
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode().splitlines()[-1] == (
        f"provisioner: Kubeconfig can't be read: {kubeconfig} belongs to uid 1234 and has mode 0600. "
        f'We run as uid {UID}. To run as its owner, add this line to the service in the compose file: user: "1234:5678"'
    )
