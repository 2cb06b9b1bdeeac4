"""Nothing of the content of any file in KUBECONFIG comes out, whichever of them is bad; with a real kubectl."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from devcluster import Cluster
from sandboxes.app import load_all_templates
from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.ops.doctor import check
from sandboxes.settings import Settings
from tests import kubeconfigs
from tests.contract.service import KUBECTL, URL, StartProvisioner
from tests.contract.test_kubeconfig_secrets import KUBECTLS_WORDS, environ
from tests.logs import Log
from tests.marker import shows

MakeSettings = Callable[..., Settings]


def without_users(cluster: Cluster, path: Path) -> Path:
    """Write a kubeconfig that has no user of its own."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    path.write_text(yaml.safe_dump({**config, "users": [], "clusters": []}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", kubeconfigs.CASES)
async def test_nothing_of_a_bad_second_file_is_said_at_the_start_and_by_check(
    name: str, cluster: Cluster, tmp_path: Path, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sandboxes")
    log = Log(as_json=True)
    logging.getLogger().addHandler(log.handler)
    second = tmp_path / "second"
    kubeconfigs.write(name, cluster.kubeconfig.read_text(), second)
    listed = f"{without_users(cluster, tmp_path / 'first')}:{second}"
    settings = make_settings(KUBECONFIG=listed, KUBECTL=KUBECTL, KUBECTL_PASS_ENV="LOGIN")
    env = {**environ(tmp_path), "NO_PROXY": "127.0.0.1"}
    said: list[str] = []
    try:
        await connect(settings, env, tmp_path)
    except StartupError as error:
        said.append(str(error))
        assert listed in said[0]
    finally:
        logging.getLogger().removeHandler(log.handler)
    said += [str(line) async for line in check(settings, env, tmp_path, load_all_templates(settings))]
    said += log.lines
    assert [text for text in said if shows(text) or KUBECTLS_WORDS.search(text)] == []


async def test_the_service_serves_on_a_list_and_hides_what_a_plugin_in_it_prints(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    log = Log(as_json=True)
    logging.getLogger().addHandler(log.handler)
    second = tmp_path / "second"
    second.write_text(cluster.kubeconfig.read_text())
    listed = f"{tmp_path}/none:{without_users(cluster, tmp_path / 'first')}:{second}"
    provisioner = await start_provisioner(KUBECONFIG_PATH="", KUBECONFIG=listed, LIVE_VIEW="false", REAPER_INTERVAL="0")
    assert (await provisioner.get(URL)).status == 200
    kubeconfigs.write("a plugin that prints all", cluster.kubeconfig.read_text(), second)
    response = await provisioner.get(URL)
    logging.getLogger().removeHandler(log.handler)
    assert (response.status, shows(await response.text())) == (502, False)
    assert "SECRET=(hidden)" in "\n".join(log.lines)
    assert not shows("\n".join(log.lines))
