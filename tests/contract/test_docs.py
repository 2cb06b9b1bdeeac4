"""The commands in README and docs, page by page, each as it stands there, by a user in a clone without a kubeconfig.

What a command prints is compared with what the page says that it prints (`tests/pages.py`). Three things are replaced
because they would take minutes or a terminal. `run.sh` starts the service in the background, on devcluster; the test
calls it first for a page that uses a service without starting one. `test.sh` does nothing: this is what it runs.
`.venv` has the tests' own Python and kubectl.
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

# What a page's service may do beyond the Role of the defaults.
# What a newcomer reads first; the other pages run with --all.
QUICK = {"README.md", "docs/tutorial/first-sandbox.md"}
ROLES = {"docs/how-to/network-policy.md": PRODUCTION}

RUN = """\
#!/usr/bin/env bash
# As the real one, but in the background; a service that runs already ends first.
set -euo pipefail
url="http://127.0.0.1:$LISTEN_PORT"
[ ! -e "$STATE/pid" ] || kill "$(cat "$STATE/pid")"
while curl --silent --output /dev/null "$url/health"; do sleep 0.1; done
{python} provisioner.py >/dev/null </dev/null &
echo $! >"$STATE/pid"
until curl --silent --fail --output /dev/null "$url/readyz"; do kill -0 "$(cat "$STATE/pid")"; sleep 0.1; done
"""

# Notes the status of each request that the page itself makes, and ends its line, and what would go on without end.
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
    """Make what a page finds in a clone."""
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
    """Return a script that does all steps, and leaves what each prints and the statuses of its requests."""
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
        KUBECTL_START_AHEAD="false",  # a start of the service is three processes less
        LISTEN_PORT=str(port),
        NODE_HOST="127.0.0.1",
        STATE=str(state),
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
        told = [200] * (len(statuses) - 1) + [step.status or 200]
        assert statuses == (told if statuses else []), f"{page}:{step.line} was answered {statuses}"
    assert code == 0
