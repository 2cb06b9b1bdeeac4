"""The kubeconfig is replaced while the service runs: a bad one is told as such at once, and a good one works again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from tests.contract.service import URL, StartProvisioner
from tests.waiting import until

pytestmark = pytest.mark.slow

UNUSABLE = "The provisioner's kubeconfig can't be used"


def user(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["users"][0].update(user=fields)


def cluster_of(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["clusters"][0]["cluster"].update(fields)


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "nothing left": dict.clear,
    "no context": lambda config: config.update(contexts=[]),
    "no current context": lambda config: config.update({"current-context": ""}),
    "no cluster": lambda config: config.update(clusters=[]),
    "no server": cluster_of(server=""),
    "no scheme": lambda config: cluster_of(server=config["clusters"][0]["cluster"]["server"][8:])(config),
    "http for https": lambda config: cluster_of(
        server=config["clusters"][0]["cluster"]["server"].replace("https", "http")
    )(config),
    "another scheme": cluster_of(server="htps://127.0.0.1:1"),
    "no host": cluster_of(server="https://"),
    "a port that is none": cluster_of(server="https://127.0.0.1:x"),
    "a token with a line feed": user(token="a\nb"),
    "no user": user(),
    "a missing token file": user(tokenFile="/nowhere/token"),
    "a certificate without its key": user(**{"client-certificate-data": "YWJj"}),
    "groups without a user": user(token="t", **{"as-groups": ["g"]}),
    "a user name with a line feed": user(token="t", **{"as": "a\nb"}),
    "a plugin without a command": user(
        exec={"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": ""}
    ),
    "a provider without an issuer": user(**{"auth-provider": {"name": "oidc", "config": {}}}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_bad_kubeconfig_is_502_and_not_tried_again_until_it_is_repaired(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "config"
    good = cluster.kubeconfig.read_text()
    path.write_text(good)
    provisioner = await start_provisioner(KUBECONFIG_PATH=str(path), LIVE_VIEW="false", REAPER_INTERVAL="0")
    config = yaml.safe_load(good)
    CHANGES[name](config)
    path.write_text(yaml.safe_dump(config) if config else "")
    for response in (
        await provisioner.get(f"{URL}/a"),
        await provisioner.post(URL, json={"sandbox_id": "a"}),
        await provisioner.delete(f"{URL}/a"),
    ):
        assert (response.status, await response.json()) == (502, {"detail": UNUSABLE})
        assert "Retry-After" not in response.headers
    ready = await provisioner.get("/readyz")
    assert (ready.status, (await ready.json())["checks"]["api_server"]) == (503, UNUSABLE)
    path.write_text(good)
    assert (await provisioner.get(URL)).status == 200


async def test_a_file_of_the_list_that_vanishes_is_a_fault_of_the_kubeconfig(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text(cluster.kubeconfig.read_text())
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{path}")
    provisioner = await start_provisioner(KUBECONFIG_PATH="", LIVE_VIEW="false", REAPER_INTERVAL="0")
    assert (await provisioner.get(URL)).status == 200
    path.rename(tmp_path / "away")
    response = await provisioner.get(URL)
    assert (response.status, await response.json()) == (502, {"detail": UNUSABLE})


async def test_processes_started_ahead_are_renewed_when_a_file_of_the_list_changes(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "config"
    path.write_text(cluster.kubeconfig.read_text())
    provisioner = await start_provisioner(
        KUBECONFIG_PATH="", KUBECONFIG=f"{tmp_path}/none:{path}", KUBECTL_START_AHEAD="true", REAPER_INTERVAL="0"
    )
    path.write_text(path.read_text() + "\n")
    await until(lambda: "the kubeconfig has changed: renewing the waiting processes" in caplog.text)
    assert (await provisioner.get(URL)).status == 200
