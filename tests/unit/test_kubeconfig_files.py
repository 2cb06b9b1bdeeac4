"""Which kubeconfig files are read: KUBECONFIG_PATH, else the list of KUBECONFIG; with the real kubectl, no cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import credentials
from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect, read_context
from sandboxes.kubectl.kubeconfig_files import ignored_kubeconfigs, named_kubeconfigs
from sandboxes.logs import masked
from sandboxes.settings import Settings
from tests.contract.kubectls import old_kubectl
from tests.marker import MARKER, shows

MakeSettings = Callable[..., Settings]


def write(path: Path, *, token: str = MARKER, server: str = "https://10.0.0.1:6443", **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({**config, **changes}))
    return path


def in_parts(directory: Path) -> tuple[Path, Path]:
    """Write a kubeconfig in two files: the context and the cluster, and the user."""
    first = write(directory / "first", users=[])
    second = directory / "second"
    second.write_text(yaml.safe_dump({"kind": "Config", "users": [{"name": "u", "user": {"token": MARKER}}]}))
    return first, second


def joined(*paths: Path) -> str:
    return os.pathsep.join(map(str, paths))


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose PATH has no kubectl; HOME is the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


async def refusal(settings: Settings, environ: dict[str, str], directory: Path) -> str:
    with pytest.raises(StartupError) as caught:
        await connect(settings, environ, directory, service_account=directory / "none")
    assert not shows(str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("is_old", [pytest.param(True, marks=pytest.mark.slow), False])
async def test_the_files_of_kubeconfig_are_merged_and_missing_ones_passed_over(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, is_old: bool
) -> None:
    first, second = in_parts(tmp_path)
    listed = f"{tmp_path}/none:{first}::{second}"
    settings = make_settings(KUBECONFIG=listed, **({"KUBECTL": old_kubectl()} if is_old else {}))
    runner = await connect(settings, environ, tmp_path)
    assert (await read_context(runner)).name == "here"
    assert runner.kubeconfig == runner.env["KUBECONFIG"] == joined(tmp_path / "none", first, second)
    assert not any("--kubeconfig" in flag for flag in runner.flags)


async def test_one_file_of_kubeconfig_goes_before_the_default(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / ".kube" / "config", server="https://default:1")
    path = write(tmp_path / "own")
    with caplog.at_level(logging.INFO):
        runner = await connect(make_settings(KUBECONFIG=path), environ, tmp_path)
    assert f"--kubeconfig={path}" in runner.flags
    assert "KUBECONFIG" not in runner.env
    assert f"kubeconfig {path}, context here, API server https://10.0.0.1:6443" in caplog.text


async def test_kubeconfig_path_goes_before_kubeconfig(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "own")
    settings = make_settings(KUBECONFIG_PATH=path, KUBECONFIG=write(tmp_path / "other"))
    runner = await connect(settings, environ, tmp_path)
    assert runner.kubeconfig == str(path)
    assert "KUBECONFIG" not in runner.env


async def test_if_all_files_of_kubeconfig_are_missing_none_is_found(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / ".kube" / "config")
    listed = joined(tmp_path / "one", tmp_path / "two")
    message = await refusal(make_settings(KUBECONFIG=listed), environ, tmp_path)
    assert message.startswith(f"Kubeconfig not found at {listed}.")


async def test_in_a_pod_missing_files_of_kubeconfig_mean_the_service_account(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(MARKER)
    credentials.make(account, tls=True)
    environ |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    settings = make_settings(KUBECONFIG=joined(tmp_path / "one", tmp_path / "two"))
    runner = await connect(settings, environ, tmp_path, service_account=account)
    assert runner.kubeconfig == str(tmp_path / "kubeconfig.json")


async def test_a_directory_in_the_list_is_refused_by_the_variables_name(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    settings = make_settings(KUBECONFIG=joined(write(tmp_path / "own"), tmp_path))
    message = await refusal(settings, environ, tmp_path)
    assert message == f"Kubeconfig path is a directory: {tmp_path}. KUBECONFIG must name a file."


async def test_a_broken_file_in_the_list_is_refused_without_its_content(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    first, second = in_parts(tmp_path)
    second.write_text(f"users: [{MARKER}")
    message = await refusal(make_settings(KUBECONFIG=joined(first, second)), environ, tmp_path)
    assert message == f"Kubeconfig {first}:{second} is not a kubeconfig: it is empty or can't be parsed."


@pytest.mark.parametrize("value", [":", "::"])
def test_a_list_of_nothing_is_refused(make_settings: MakeSettings, value: str) -> None:
    with pytest.raises(StartupError, match=r"KUBECONFIG holds '::?'. It may hold paths of files, separated by `:`"):
        make_settings(KUBECONFIG=value)


def test_a_kubeconfigs_content_in_the_variable_is_refused_and_not_shown(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(KUBECONFIG=f"apiVersion: v1\nusers: [{{token: {MARKER}}}]")
    assert "KUBECONFIG holds a value that is not shown" in str(caught.value)
    assert not shows(str(caught.value))


def test_an_empty_variable_counts_as_unset(make_settings: MakeSettings, environ: dict[str, str]) -> None:
    assert named_kubeconfigs(make_settings(KUBECONFIG="")) == (Path(environ["HOME"]) / ".kube" / "config",)


async def test_the_secrets_of_every_file_are_hidden_also_of_one_that_appears_later(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    first, later = write(tmp_path / "first", token="secret-of-the-first"), tmp_path / "deeper" / "later"
    (tmp_path / "token").write_text("secret-of-a-token-file")
    second = write(tmp_path / "second", users=[{"name": "v", "user": {"tokenFile": "token"}}])
    runner = await connect(make_settings(KUBECONFIG=joined(first, second, later)), environ, tmp_path)
    assert masked("secret-of-the-first secret-of-a-token-file") == "(hidden) (hidden)"
    write(later, users=[{"name": "w", "user": {"token": "secret-of-the-later"}}])
    write(first, token="rotated-in-the-first")
    runner.before_start()
    assert masked("secret-of-the-later rotated-in-the-first") == "(hidden) (hidden)"
    assert masked("secret-of-the-first") == "(hidden)"


@pytest.mark.usefixtures("environ")
def test_a_default_that_another_variable_hides_is_warned_of(make_settings: MakeSettings, tmp_path: Path) -> None:
    own = write(tmp_path / "own")
    default = tmp_path / ".kube" / "config"
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG=own))) == []
    write(default, server="https://default:1")
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG=own))) == [
        f"KUBECONFIG names {own}, so {default} is not read, which also exists."
    ]
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG=joined(own, default)))) == []
    write(default)
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG=own))) == []


def test_two_variables_that_differ_are_warned_of(make_settings: MakeSettings, tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other", server="https://other:1")
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG_PATH=one, KUBECONFIG=other))) == [
        f"KUBECONFIG names {other} and is not read: KUBECONFIG_PATH names {one}."
    ]
    assert list(ignored_kubeconfigs(make_settings(KUBECONFIG_PATH=one, KUBECONFIG=one))) == []


# Faults that `kubectl config view` does not show.


def of_user(**user: Any) -> dict[str, Any]:
    return {"users": [{"name": "u", "user": user}]}


def of_cluster(**cluster: Any) -> dict[str, Any]:
    return {"clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}]}


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "login", "interactiveMode": "Never"}
PROVIDER = "its credential plugin is not configured as this kubectl wants it"
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a CA and no check": (
        of_cluster(**{"insecure-skip-tls-verify": True, "certificate-authority-data": "YWJj"}),
        "its certificates or keys can't be used",
    ),
    "a CA that is no PEM": (
        of_cluster(**{"certificate-authority-data": "YWJj"}),
        "its certificates or keys can't be used",
    ),
    "a proxy without a scheme": (of_cluster(**{"proxy-url": "proxy:3128"}), "its proxy-url can't be used"),
    "a server that is no address": (of_cluster(server="https://bad host:1"), "it names no usable API server"),
    "a token file that is missing": (
        of_user(tokenFile="/nowhere/token"),
        "it, or a file that it names, can't be read",
    ),
    "a certificate that is no PEM": (
        of_user(**{"client-certificate-data": "YWJj", "client-key-data": "YWJj"}),
        "its certificates or keys can't be used",
    ),
    "a plugin without a mode": (of_user(exec={**EXEC, "interactiveMode": ""}), PROVIDER),
    "a plugin of an old version": (
        of_user(exec={**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}),
        PROVIDER,
    ),
    "a provider that is gone": (of_user(**{"auth-provider": {"name": "gcp"}}), PROVIDER),
    "a provider without an issuer": (of_user(**{"auth-provider": {"name": "oidc", "config": {}}}), PROVIDER),
    "groups without a user": (
        of_user(token="t0ken", **{"as-groups": ["g"]}),
        "its user has groups to impersonate, but no user",
    ),
}


@pytest.mark.parametrize("is_old", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_kubectl_would_report_during_a_request_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, name: str, is_old: bool
) -> None:
    changes, fault = FAULTS[name]
    path = write(tmp_path / "config", **changes)
    settings = make_settings(KUBECONFIG_PATH=path, **({"KUBECTL": old_kubectl()} if is_old else {}))
    assert await refusal(settings, environ, tmp_path) == f"Kubeconfig {path} can't be used: {fault}."


@pytest.mark.parametrize("server", ["10.0.0.1:6443", "htps://10.0.0.1:6443", "//10.0.0.1:6443"])
async def test_a_server_without_https_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, server: str
) -> None:
    path = write(tmp_path / "config", server=server)
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == (
        f"Kubeconfig {path} names an API server without `https://`, so kubectl would speak plain http to it."
    )
    settings = make_settings(KUBECONFIG_PATH=path, K8S_API_SERVER="https://10.0.0.2:6443")
    await connect(settings, environ, tmp_path)


async def test_a_token_file_without_a_token_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("")
    path = write(tmp_path / "config", **of_user(tokenFile="token"))
    message = await refusal(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has no user with credentials for its current context."


async def test_no_credential_plugin_runs_before_the_first_request(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    plugin = {**EXEC, "command": "/bin/sh", "args": ["-c", f"touch {ran}"]}
    path = write(tmp_path / "config", **of_user(exec=plugin))
    await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert not ran.exists()


async def test_a_cluster_whose_certificate_is_not_checked_is_warned_of(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "config", **of_cluster(**{"insecure-skip-tls-verify": True}))
    await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert "has insecure-skip-tls-verify for its cluster: the API server's certificate is not checked." in caplog.text


async def test_the_setting_not_to_check_wins_over_the_kubeconfigs_ca(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    authority = credentials.make(tmp_path, tls=True).ca_file
    path = write(tmp_path / "config", **of_cluster(**{"certificate-authority": str(authority)}))
    settings = make_settings(KUBECONFIG_PATH=path, K8S_INSECURE_SKIP_TLS_VERIFY="true")
    assert "--insecure-skip-tls-verify=true" in (await connect(settings, environ, tmp_path)).flags
