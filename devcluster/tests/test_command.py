"""`python -m devcluster`, as a user at a terminal or a script runs it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from devcluster import Cluster
from devcluster.authorization import Right
from tests.audit import TESTER, of_the_service, reading, right_of
from tests.kubectl import Kubectl, pod

PIPE = asyncio.subprocess.PIPE
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devcluster", *args), stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(*args: str) -> tuple[int, str, str]:
    async with running(*args) as process, asyncio.timeout(60):
        stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return process.returncode, stdout.decode(), stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_its_kubeconfig_serves_and_cleans_up_on_a_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with running() as process:
        assert process.stdout is not None
        kubeconfig = Path((await process.stdout.readline()).decode().strip())
        assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
        assert (await Kubectl(kubeconfig, tmp_path)("get", "--raw", "/readyz")).stdout == "ok"
        process.send_signal(number)
        async with asyncio.timeout(60):
            rest, stderr = await process.communicate()
        assert (process.returncode, rest, stderr) == (0, b"", b"")
        assert not kubeconfig.parent.exists()


async def test_a_command_gets_the_cluster_in_its_environment_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NODE_HOST", raising=False)
    shown = 'echo "$KUBECONFIG|$KUBECONFIG_PATH|$NODE_HOST"; test -s "$KUBECONFIG"; exit 7'
    code, stdout, _ = await run("--", "sh", "-c", shown)
    kubeconfig, path, host = stdout.strip().split("|")
    assert code == 7
    assert kubeconfig == path
    assert host == "127.0.0.1"
    assert not Path(kubeconfig).exists()


async def test_an_existing_node_host_variable_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_HOST", "elsewhere")
    _, stdout, _ = await run("--", "sh", "-c", "echo $NODE_HOST")
    assert stdout == "elsewhere\n"


async def test_a_missing_command_is_reported_with_exit_code_127() -> None:
    code, _, stderr = await run("--", "no-such-command-here")
    assert (code, stderr) == (127, "devcluster: can't run no-such-command-here: No such file or directory\n")


async def test_a_signal_is_forwarded_and_ends_the_command() -> None:
    script = "trap 'echo ending; exit 3' TERM; echo $$; while :; do sleep 0.05; done"
    async with running("--", "sh", "-c", script) as process:
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        process.terminate()
        async with asyncio.timeout(60):
            rest, _ = await process.communicate()
        assert (process.returncode, rest) == (3, b"ending\n")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_command_ends_when_devcluster_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed process leaves its directory behind
    async with running("--", "sh", "-c", "echo up; while :; do sleep 0.05; done") as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.kill()
        async with asyncio.timeout(60):
            await process.communicate()  # returns once all processes have closed the output, the command included


def take_terminal() -> None:
    """Make standard input the controlling terminal of the process."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_ctrl_c_in_a_terminal_reaches_the_command_once_and_ends_both() -> None:
    terminal, child_end = os.openpty()
    script = "trap 'echo ending; exit 4' INT; echo up; while :; do sleep 0.05; done"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devcluster", "--", "sh", "-c", script),
        stdin=child_end,
        stdout=child_end,
        stderr=child_end,
        preexec_fn=take_terminal,
        cwd=ROOT,
    )
    os.close(child_end)
    seen = b""
    while b"up" not in seen:
        seen += await asyncio.to_thread(os.read, terminal, 1000)
    os.write(terminal, b"\x03")
    async with asyncio.timeout(60):
        code = await process.wait()
    seen += await asyncio.to_thread(os.read, terminal, 1000)
    os.close(terminal)
    assert (code, seen.count(b"ending")) == (4, 1)


async def test_plain_http_needs_no_credentials(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", tls=False) as cluster:
        assert cluster.url.startswith("http://127.0.0.1:")
        assert (await Kubectl(cluster.kubeconfig, tmp_path / "home")("get", "namespaces")).rc == 0


async def test_its_help_does_not_mention_kubernetes() -> None:
    code, stdout, _ = await run("--help")
    assert code == 0
    assert "a stand-in for development" in stdout
    assert "kubernetes" not in stdout.lower()


async def test_the_audit_log_shows_the_user_and_the_rights_of_each_request(tmp_path: Path) -> None:
    new = reading(tmp_path / "audit.log")
    async with running("--audit-log", str(tmp_path / "audit.log")) as process:
        assert process.stdout is not None
        kubeconfig = Path((await process.stdout.readline()).decode().strip())
        as_service = Kubectl(kubeconfig, tmp_path, tester=False)
        assert (await as_service("get", "pods")).rc == 0
        requests = [entry for entry in new() if of_the_service(entry)]
        assert Right("list", "", "pods") in map(right_of, requests)
        assert {(entry.path, entry.namespace) for entry in requests} >= {("/api", ""), ("", "default")}
        assert new() == []
        assert (await Kubectl(kubeconfig, tmp_path)("get", "services")).rc == 0
        assert {(entry.user, right_of(entry)) for entry in new() if not entry.path} == {
            (TESTER, Right("list", "", "services"))
        }
        # An apply that creates an object needs two rights.
        assert (await as_service.apply(pod("x"))).rc == 0
        rights = {right_of(entry) for entry in new() if not entry.path}
        assert rights >= {Right("patch", "", "pods"), Right("create", "", "pods")}


async def test_several_clusters_are_listed_in_a_file_and_end_with_it(tmp_path: Path) -> None:
    async with running("--clusters", "2", "--directory", str(tmp_path / "d")) as process:
        assert process.stdout is not None
        file = Path((await process.stdout.readline()).decode().strip())
        listed = yaml.safe_load(file.read_text())
        assert [one["name"] for one in listed] == ["dev-1", "dev-2"]
        first, second = (Kubectl(Path(one["kubeconfig"]), tmp_path / one["name"]) for one in listed)
        assert (await first("create", "namespace", "one")).rc == 0
        assert (await second("get", "namespace", "one")).rc == 1
        code, _, stderr = await run("--clusters", "2", "--directory", str(tmp_path / "d"))
        assert (code, stderr) == (1, f"devcluster: another devcluster uses {tmp_path / 'd'}\n")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            await process.communicate()
        assert process.returncode == 0
        assert {path.name for path in (tmp_path / "d").iterdir()} == {"lock"}


async def test_a_command_gets_the_list_of_several_clusters_in_its_variables() -> None:
    code, stdout, _ = await run("--clusters", "3", "--", "sh", "-c", 'echo "$KUBECONFIG"; cat "$CLUSTERS_FILE"')
    kubeconfig, _, text = stdout.partition("\n")
    listed = yaml.safe_load(text)
    assert code == 0
    assert [one["name"] for one in listed] == ["dev-1", "dev-2", "dev-3"]
    assert listed[0]["kubeconfig"] == kubeconfig
    assert not Path(kubeconfig).parents[1].exists()
