"""A kubectl with injected failures, and helpers for tests of the live view."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster import Cluster
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.processes import command_of, processes_with
from tests.contract.service import KUBECTL, URL, Provisioner
from tests.waiting import until

if TYPE_CHECKING:
    from tests.kubectl import Kubectl


class TamperedKubectl:
    """The real kubectl, with a failure that its file `mode` names; records every call in `calls`."""

    def __init__(self, directory: Path, binary: str | Path = KUBECTL) -> None:
        self.path = directory / "tampered-kubectl"
        self._mode = directory / "mode"
        self._calls = directory / "calls"
        self._mode.write_text("")
        self._calls.write_text("")
        self.path.write_text(
            "#!/bin/sh\n"
            f"mode=$(cat {self._mode})\n"
            f'echo "$*" >> {self._calls}\n'
            'case "$mode $*" in\n'
            f"  watch-says*watch=1*) cat {directory}/said; exec sleep 600 ;;\n"
            f"  watch-once*watch=1*) if mv {directory}/said {directory}/said.$$ 2>/dev/null; then"
            f" cat {directory}/said.$$; exec sleep 600; fi ;;\n"
            "  watch-hangs*watch=1*) exec sleep 600 ;;\n"
            f"  watch-late*watch=1*) while [ ! -e {directory}/go ]; do sleep 0.05; done ;;\n"
            "  watch-ends*watch=1*) exit 0 ;;\n"
            "  watch-garbage*watch=1*) echo 'no JSON at all'; exec sleep 600 ;;\n"
            '  watch-half*watch=1*) printf \'{"type": "ADDED", "object": {"ki\'; exit 0 ;;\n'
            '  watch-forbidden*watch=1*) echo \'Error from server (Forbidden): pods is forbidden: User "u" cannot '
            'watch resource "pods" in API group "" in the namespace "deer-flow"\' >&2; exit 1 ;;\n'
            '  list-fails*limit=*) echo \'{"apiVersion":"v1","items":[],"kind":"PodList"}\';'
            " echo 'Error from server (InternalError): no' >&2; exit 1 ;;\n"
            f'  list-lags*limit=*) {binary} "$@" > {directory}/list.$$; echo "$*" >> {directory}/lagging;'
            f" while [ ! -e {directory}/go ]; do sleep 0.05; done; exec cat {directory}/list.$$ ;;\n"
            "esac\n"
            f'exec {binary} "$@"\n'
        )
        self.path.chmod(0o755)

    def set_mode(self, mode: str) -> None:
        """Set the failure for the following starts; "" is none."""
        self._mode.write_text(mode)

    def lines(self) -> list[str]:
        """Return the arguments of all calls, one line for each."""
        return self._calls.read_text().splitlines()

    def calls(self) -> Counter[str]:
        """Count the calls by kind."""
        lines = self.lines()
        return Counter("watch" if "watch=1" in line else "list" if "limit=" in line else "other" for line in lines)


@pytest.fixture
def tampered(tmp_path: Path) -> TamperedKubectl:
    return TamperedKubectl(tmp_path)


# Shorter pauses before a watch restarts, and a shorter timeout of silent watches.
QUICK_VIEW = pytest.mark.deadlines(watch_pauses=(0.05, 0.1), watch_silence=1.0)


async def until_fresh(provisioner: Provisioner) -> None:
    """Wait until reads are served by the live view."""
    await until(lambda: provisioner.view.is_fresh)


async def status_of(provisioner: Provisioner, sandbox_id: str = "a") -> int:
    return (await provisioner.get(f"{URL}/{sandbox_id}")).status


async def is_status(provisioner: Provisioner, sandbox_id: str, status: int) -> bool:
    return await status_of(provisioner, sandbox_id) == status


async def ids(provisioner: Provisioner) -> set[str]:
    answer = await (await provisioner.get(URL)).json()
    return {sandbox["sandbox_id"] for sandbox in answer["sandboxes"]}


async def end_watches(cluster: Cluster) -> None:
    """Let the API server end both watches of the only running service, once they are open."""
    await until(lambda: cluster.open_watches() == 2)
    cluster.end_watches()


def watches(tmp_path: Path) -> list[int]:
    return [pid for pid in processes_with(str(tmp_path)) if b"watch=1" in command_of(pid)]


async def create_manually(kubectl: Kubectl, template: Template, sandbox_id: str) -> None:
    """Create a sandbox without the service."""
    objects = build(
        Sandbox(sandbox_id, sandbox_id, "default"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z"
    )
    result = await kubectl.apply(*objects)
    assert result.rc == 0, result.stderr


async def delete_manually(kubectl: Kubectl, sandbox_id: str) -> None:
    result = await kubectl(
        "delete", f"pod/sandbox-{sandbox_id}", f"service/sandbox-{sandbox_id}-svc", "-n", "deer-flow", "--wait=false"
    )
    assert result.rc == 0, result.stderr


async def in_list(provisioner: Provisioner, sandbox_id: str) -> bool:
    return sandbox_id in await ids(provisioner)


async def not_in_list(provisioner: Provisioner, sandbox_id: str) -> bool:
    return sandbox_id not in await ids(provisioner)
