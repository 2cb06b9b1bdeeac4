"""The service with a kubectl older than 1.30."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import Cluster
from tests.contract import kubectls
from tests.contract.service import URL, StartProvisioner, create
from tests.waiting import until


@pytest.mark.slow
async def test_an_old_kubectl_creates_lists_and_deletes_a_sandbox(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(kubectls.old_kubectl()))
    await create(provisioner)

    async def running() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json())["status"] == "Running")

    await until(running)
    sandboxes = (await (await provisioner.get(URL)).json())["sandboxes"]
    assert [sandbox["sandbox_id"] for sandbox in sandboxes] == ["a"]
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    await until(lambda: not cluster.objects("Pod") and not cluster.objects("Service"))
    assert (await provisioner.get(f"{URL}/a")).status == 404


def test_a_missing_old_kubectl_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECTL_OLD", str(tmp_path / "none"))
    with pytest.raises(kubectls.NoOldKubectlError, match="no program that can be run"):
        kubectls.old_kubectl()
    monkeypatch.delenv("KUBECTL_OLD")
    monkeypatch.setattr(kubectls, "CACHE", tmp_path / "cache")
    pin = tmp_path / "pin.txt"
    pin.write_text(f"{tmp_path}/nothing.whl --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    monkeypatch.setattr(kubectls, "REQUIREMENT", pin)
    with pytest.raises(kubectls.NoOldKubectlError, match="set KUBECTL_OLD"):
        kubectls.old_kubectl()
