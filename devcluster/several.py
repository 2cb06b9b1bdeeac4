"""Runs several clusters, dev-1, dev-2, …, and writes a list of them as the provisioner's CLUSTERS_FILE."""

import fcntl
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.cluster import Cluster

_HEADING = """\
# The clusters of this provisioner, which reads this file again when it changes.
# All of them are devcluster, a stand-in for development, and end with it.
"""


class InUseError(Exception):
    """Another process runs its clusters in the same folder."""


@dataclass(frozen=True)
class Several:
    """Running clusters, at least one, and the file that lists them."""

    clusters: tuple[Cluster, ...]
    file: Path


@asynccontextmanager
async def several(count: int, directory: Path | None, make: Callable[[Path], Cluster]) -> AsyncIterator[Several]:
    """Run `count` clusters during the block. Their files are in `directory` (default: a temporary one) until its end.

    `make`: returns a cluster, not yet started, with its files in a folder. Raises InUseError.
    """
    async with AsyncExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devcluster-")))
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context((directory / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"another devcluster uses {directory}") from None
        entries = []
        clusters = []
        for name in (f"dev-{number}" for number in range(1, count + 1)):
            folder = directory / name
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cluster = await stack.enter_async_context(make(folder))
            clusters.append(cluster)
            # Any JSON string is one of YAML.
            entries.append(f"- name: {name}\n  kubeconfig: {json.dumps(str(cluster.kubeconfig))}\n  weight: 1\n")
        file = directory / "clusters.yaml"
        stack.callback(file.unlink, missing_ok=True)
        file.write_text("".join([_HEADING, *entries]), encoding="utf-8")
        yield Several(tuple(clusters), file)
