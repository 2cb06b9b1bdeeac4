"""The content of a kubeconfig is never shown, though a real kubectl quotes it in many messages."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devcluster import Cluster
from sandboxes import app as program
from sandboxes import errors
from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.ops.doctor import check
from sandboxes.settings import Settings
from tests import kubeconfigs
from tests.conftest import ROOT
from tests.contract.processes import environment, free_port, run, running
from tests.contract.service import KUBECTL, URL, StartProvisioner
from tests.logs import Log
from tests.marker import MARKER, shows
from tests.waiting import until

pytestmark = pytest.mark.starts_in_full

MakeSettings = Callable[..., Settings]

# Cases in which kubectl works with the kubeconfig, and cases whose error is not about the file itself.
WORKING = {"two documents", "a broken second document", "an anchor twice", "a key twice"}
NOT_ABOUT_THE_FILE = {
    "a plugin that is missing",
    "a plugin that prints all",
    "a proxy that is down",
    "a proxy that is unknown",
    "a server with a password",
    "a server with a query",
    "a server without a scheme",
    "a wrong password",
    "a wrong token",
}

# Terms of kubectl's messages, which the service's own messages do not use.
KUBECTLS_WORDS = re.compile(r"NamedAuthInfo|NamedCluster|cannot unmarshal|in list:|invalid 'proxy-url'|anchor|no kind")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """The log, rendered as the service renders it."""
    caplog.set_level(logging.DEBUG, "sandboxes")
    log = Log(as_json=True)
    root = logging.getLogger()
    root.addHandler(log.handler)
    yield log
    root.removeHandler(log.handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Path of the kubeconfig of a case."""
    (tmp_path / "kube").mkdir()
    return tmp_path / "kube" / "config"


def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "LOGIN": f"login {MARKER}",
        "HTTPS_PROXY": f"http://u:{MARKER}@p",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", kubeconfigs.CASES)
async def test_start_and_check_never_quote_a_kubeconfig(
    name: str, cluster: Cluster, path: Path, tmp_path: Path, make_settings: MakeSettings, log: Log
) -> None:
    kubeconfigs.write(name, cluster.kubeconfig.read_text(), path)
    settings = make_settings(KUBECONFIG_PATH=path, KUBECTL=KUBECTL, KUBECTL_PASS_ENV="LOGIN")
    env = {**environ(tmp_path), "NO_PROXY": "127.0.0.1"}
    output: list[str] = []
    try:
        await connect(settings, env, tmp_path)
    except StartupError as error:
        output.append(str(error))
    assert [text for text in output if str(path) not in text] == []
    templates = program.load_all_templates(settings)
    output += [str(line) async for line in check(settings, env, tmp_path, templates)]
    output += log.lines
    assert len(output) > 1
    assert [text for text in output if shows(text) or KUBECTLS_WORDS.search(text)] == []


@pytest.mark.slow
async def test_a_kubeconfig_changed_at_run_time_is_never_quoted(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    path: Path,
    tmp_path: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (errors.AlreadyThere, errors.ConnectionFailed, errors.ServerFailed):
        monkeypatch.setattr(error, "pauses", (0.01,))
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    provisioner = await start_provisioner(
        KUBECONFIG_PATH=str(path),
        KUBECTL_PASS_ENV="LOGIN",
        KUBECTL_START_AHEAD="false",
        LIVE_VIEW="false",
        REAPER_INTERVAL="0",
        **{**environ(tmp_path), "NO_PROXY": "127.0.0.1"},
    )
    for number, name in enumerate(kubeconfigs.CASES):
        kubeconfigs.write(name, good, path)
        before = len(log.lines)
        response = await provisioner.post(URL, json={"sandbox_id": f"s{number}"})
        body, lines = await response.text(), "\n".join(log.lines[before:])
        assert not shows(body), name
        assert not shows(lines), name
        if name in WORKING:
            assert response.status == 200, (name, body)
            continue
        assert response.status in (502, 503), (name, body)
        assert not KUBECTLS_WORDS.search(body), name
        if name not in NOT_ABOUT_THE_FILE:
            assert (response.status, "kubeconfig can't be used" in body) == (502, True), (name, body)
            assert "it is about the kubeconfig and may quote it: " in lines, name
            assert f"kubectl --kubeconfig {path} config view" in lines, name


@pytest.mark.deadlines(pool_tick=0.05)
async def test_watches_and_the_pool_never_quote_a_changed_kubeconfig(
    start_provisioner: StartProvisioner, cluster: Cluster, path: Path, log: Log
) -> None:
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), LIVE_VIEW_MAX_AGE="2")
    await until(lambda: cluster.open_watches() == 2)
    kubeconfigs.write("two users", good, path)
    cluster.faults.cut_watches("pods")
    cluster.faults.expire_watches("services")

    def diagnosed(what: str) -> list[str]:
        return [line for line in log.lines if what in line and "two of its users have one name" in line]

    await until(lambda: diagnosed("the watch of pods ended"))
    await until(lambda: diagnosed("the services of the live view can't be listed"))
    await until(lambda: any("renewing the waiting processes" in line for line in log.lines))

    async def is_refused() -> bool:
        return (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 502

    await until(is_refused)
    assert diagnosed("ClusterRefused")
    assert [line for line in log.lines if shows(line)] == []


@pytest.mark.parametrize(
    "section", ["users", *(pytest.param(one, marks=pytest.mark.slow) for one in ("clusters", "contexts"))]
)
async def test_duplicate_kubeconfig_entries_stop_the_start_with_their_name(
    section: str, cluster: Cluster, path: Path, tmp_path: Path, make_settings: MakeSettings, log: Log
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config[section].append(config[section][0])
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(StartupError) as caught:
        await connect(make_settings(KUBECONFIG_PATH=path, KUBECTL=KUBECTL), environ(tmp_path), tmp_path)
    assert str(caught.value) == f"Kubeconfig {path} has two {section} of the name devcluster."
    assert f"run `kubectl --kubeconfig {path} config view`" in log.written.getvalue()


async def test_a_plugins_output_is_logged_with_its_secrets_hidden(
    start_provisioner: StartProvisioner, cluster: Cluster, path: Path, tmp_path: Path, log: Log
) -> None:
    """The operator needs the plugin's output; secrets in it are hidden."""
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    provisioner = await start_provisioner(
        KUBECONFIG_PATH=str(path), KUBECTL_PASS_ENV="LOGIN", LOGIN=f"login {MARKER}", KUBECTL_START_AHEAD="false",
        LIVE_VIEW="false",
    )  # fmt: skip
    kubeconfigs.write("a plugin that prints all", good, path)
    assert (await provisioner.post(URL, json={"sandbox_id": "a"})).status == 502
    (line,) = (event["event"] for event in log.events if event["event"].startswith("ClusterRefused"))
    assert f"HOME={tmp_path}\n" in line
    assert "\nSECRET=(hidden)\n" in line
    assert "\nSCRIPT=(hidden)\n" in line
    assert "\nLOGIN=(hidden)\n" in line
    assert '"certificate-authority-data":"(hidden)"' in line
    assert "arguments: ['(hidden)', '--password', '(hidden)', '--key=(hidden)']" in line
    assert line.rstrip().endswith(f"exec: executable {path.parent}/login failed with exit code 3")


@pytest.mark.parametrize(
    "more",
    ["\n---\n- [a", *(pytest.param(one, marks=pytest.mark.slow) for one in ("\n...\n}", f"\n---\n{'[' * 200}"))],
)
async def test_plugin_output_is_not_logged_when_only_kubectl_can_parse_the_kubeconfig(
    more: str, start_provisioner: StartProvisioner, cluster: Cluster, path: Path, log: Log
) -> None:
    """Without parsing it, the service does not know which values to hide."""
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), KUBECTL_START_AHEAD="false", LIVE_VIEW="false")
    kubeconfigs.write("a plugin that prints all", good, path)
    path.write_text(path.read_text() + more)
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert (response.status, "credential plugin failed" in await response.text()) == (502, True)
    (line,) = (event["event"] for event in log.events if event["event"].startswith("ClusterRefused"))
    assert "can't be read whole" in line
    assert "HOME=" not in line


# The commands as processes: their output and their log.


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "check", "reap"])
async def test_every_command_names_a_duplicate_user_and_prints_no_secret(
    command: str, cluster: Cluster, path: Path, tmp_path: Path
) -> None:
    kubeconfigs.write("two users", cluster.kubeconfig.read_text(), path)
    env = environment(tmp_path, KUBECONFIG_PATH=str(path))
    rc, stdout, stderr = await run(sys.executable, str(ROOT / "provisioner.py"), command, environ=env)
    assert rc == (2 if command == "check" else 1)
    assert f"Kubeconfig {path} has two users of the name devcluster." in stdout + stderr
    assert "two of its users have one name" in stderr  # the log
    assert not shows(stdout + stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a plugin that prints all", "a server with a password", "a proxy of another scheme"])
async def test_reap_and_check_print_no_secret(name: str, cluster: Cluster, path: Path, tmp_path: Path) -> None:
    kubeconfigs.write(name, cluster.kubeconfig.read_text(), path)
    env = environment(tmp_path, KUBECONFIG_PATH=str(path), KUBECTL_PASS_ENV="LOGIN", LOGIN=f"login {MARKER}")
    rc, stdout, stderr = await run(sys.executable, str(ROOT / "provisioner.py"), "reap", environ=env)
    assert (rc, stdout) == (1, "")
    assert "provisioner: The " in stderr or f"provisioner: Kubeconfig {path} can't be used: " in stderr
    rc, checked, errors = await run(sys.executable, str(ROOT / "provisioner.py"), "check", environ=env)
    assert rc == 2
    assert not shows(stdout + stderr + checked + errors)


async def test_a_rotated_token_is_hidden_in_a_plugins_output(cluster: Cluster, path: Path, tmp_path: Path) -> None:
    """The token is new in the kubeconfig, and a plugin's output shows it before the service has used it."""
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    port, written = free_port(), tmp_path / "log"
    env = environment(tmp_path, KUBECONFIG_PATH=str(path), PORT=str(port), LOG_LEVEL="DEBUG", LIVE_VIEW_MAX_AGE="2")
    async with running(sys.executable, str(ROOT / "provisioner.py"), environ=env, log=written) as process:
        await until(lambda: "listening" in written.read_text())
        kubeconfigs.write("a plugin that prints all", good, path)
        await until(lambda: "SECRET=(hidden)" in written.read_text())
        process.send_signal(signal.SIGTERM)
        await process.wait()
    assert not shows(written.read_bytes())
