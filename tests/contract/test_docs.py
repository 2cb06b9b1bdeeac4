"""Runs the commands of README and docs unchanged, page by page, in a clone without a kubeconfig.

The output is compared with the page's (`tests/pages.py`). Three things are replaced because they need minutes or a
terminal. `run.sh` starts the service in the background, on devcluster; the test calls it first for a page that uses a
service without starting one. `test.sh` does nothing, since it runs these tests. `.venv` has the tests' own Python and
kubectl.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.kubectl.config import SERVICE_ACCOUNT
from tests.audit import AS_TESTER, PRODUCTION
from tests.conftest import ROOT
from tests.contract.processes import environment, free_port, run
from tests.contract.service import KUBECTL
from tests.pages import Step, blocks, fits, pages_with_commands, steps

# The page of a first visit; the other pages run with --all.
QUICK = {"README.md"}
# Pages whose service needs another Role than the default one.
ROLES = {"docs/how-to/network-policy.md": PRODUCTION}

RUN = """\
#!/usr/bin/env bash
# Like the real one, but in the background; it stops a running service first.
set -euo pipefail
url="http://127.0.0.1:$LISTEN_PORT"
[ ! -e "$STATE/pid" ] || kill "$(cat "$STATE/pid")"
while curl --silent --output /dev/null "$url/health"; do sleep 0.1; done
command=({python} provisioner.py)
[ $# -eq 0 ] || command=({python} -m devcluster "$@" --directory .dev-clusters -- "${command[@]}")
if [ "${SANDBOX_ACCESS:-}" = gateway ]; then
  export SANDBOX_GATEWAY_DIAL=pod-ip SANDBOX_GATEWAY_PORT="$GATEWAY_PORT"
  command=({python} -m devcluster --pod-servers -- "${command[@]}")
fi
"${command[@]}" >/dev/null </dev/null &
echo $! >"$STATE/pid"
until curl --silent --fail --output /dev/null "$url/readyz"; do kill -0 "$(cat "$STATE/pid")"; sleep 0.1; done
"""

# Records the status of each of the page's requests, ends its output with a line feed, and limits endless ones.
BEGINNING = r"""
set -euo pipefail
curl() {
  local most=() result=0
  case " $* " in *" -sN "*) most=(--max-time 2) ;; esac
  command curl "${most[@]}" --write-out '\n%{stderr}\nHTTP %{http_code}\n' "$@" 2>"$STATE/said" || result=$?
  sed -n 's/^HTTP //p' "$STATE/said" | tail -n 1 >>"$STATE/status"
  [ "$result" = 28 ] || return "$result"
}
end() {
  [ ! -e "$STATE/pid" ] || kill "$(cat "$STATE/pid")"
  while command curl --silent --output /dev/null "http://127.0.0.1:$LISTEN_PORT/health"; do sleep 0.1; done
}
trap end EXIT
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def clone(folder: Path) -> None:
    """Create the files of a clone that pages use."""
    (folder / "scripts").mkdir(parents=True)
    for name in ("provisioner.py", "sandboxes", "manifests", "devcluster"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "scripts" / "smoke.sh").symlink_to(ROOT / "scripts" / "smoke.sh")
    python = shlex.quote(sys.executable)
    executable(folder / "scripts" / "run.sh", RUN.replace("{python}", python))
    executable(folder / "scripts" / "test.sh", "#!/bin/sh\n")
    executable(folder / ".venv" / "bin" / "python", f'#!/bin/sh\nexec {python} "$@"\n')
    speaking_as_tester = f'#!/bin/sh\nexec {shlex.join([str(KUBECTL), *AS_TESTER])} "$@"\n'
    executable(folder / ".venv" / "bin" / "kubectl", speaking_as_tester)
    executable(folder / "bin" / "kubectl", speaking_as_tester)


def script(todo: list[Step], state: Path, port: int) -> str:
    """Return a script that runs all steps and saves the output and the statuses of each."""
    lines = [BEGINNING]
    before, _, _ = "".join(step.commands for step in todo).partition("./scripts/run.sh")
    if ":8002" in before:
        lines.append("./scripts/run.sh\n")
    for number, step in enumerate(todo):
        commands = step.commands
        for host in ("127.0.0.1", "localhost"):
            commands = commands.replace(f"{host}:8002", f"127.0.0.1:{port}")
        folder = shlex.quote(str(state / f"{number}."))
        lines.append(f": >$STATE/status\n{{\n{commands}\n}} >{folder}printed\ncp $STATE/status {folder}status\n")
    return "".join(lines)


def of_page(page: str) -> list[Step]:
    return [step for block in blocks(page) if block.is_run for step in steps(block)]


@pytest.mark.skipif((SERVICE_ACCOUNT / "token").exists(), reason="in a Pod no caller is answered without a key")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[
                *([pytest.mark.role(ROLES[page])] if page in ROLES else []),
                *([] if page in QUICK else [pytest.mark.slow]),
            ],
        )
        for page in pages_with_commands()
    ],
)
async def test_the_commands_of_a_page_succeed_and_print_what_it_shows(
    cluster: Cluster, tmp_path: Path, page: str
) -> None:
    folder, state, port, todo = tmp_path / "clone", tmp_path / "state", free_port(), of_page(page)
    clone(folder)
    state.mkdir()
    environ = environment(
        tmp_path,
        PATH=f"{folder}/bin:/usr/bin:/bin",
        KUBECONFIG=str(cluster.kubeconfig),
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        KUBECTL_START_AHEAD="false",  # saves three processes for each start of the service
        LISTEN_PORT=str(port),
        NODE_HOST="127.0.0.1",
        STATE=str(state),
        GATEWAY_PORT=str(free_port()),  # the service gets it only on a page that uses the gateway
    )
    del environ["ALLOW_UNAUTHENTICATED"]
    (tmp_path / "script").write_text(f"cd {shlex.quote(str(folder))}\n{script(todo, state, port)}")
    log = tmp_path / "log"
    command = f"exec bash {shlex.quote(str(tmp_path / 'script'))} 2>{shlex.quote(str(log))}"
    code, _, _ = await run("/bin/sh", "-c", command, environ=environ, seconds=100)
    done = [(state / f"{number}.status").exists() for number in range(len(todo))]
    failed = next((step for step, is_done in zip(todo, done, strict=True) if not is_done), None)
    assert failed is None, f"{page}:{failed.line} ended with {code}:\n{log.read_text()[-3000:]}"
    for number, step in enumerate(todo):
        printed = (state / f"{number}.printed").read_text()
        assert not step.printed or fits(printed, step.printed), f"{page}:{step.line} printed {printed}"
        statuses = [int(status) for status in (state / f"{number}.status").read_text().split()]
        expected = [200] * (len(statuses) - 1) + [step.status or 200]
        assert statuses == (expected if statuses else []), f"{page}:{step.line} was answered {statuses}"
    assert code == 0
