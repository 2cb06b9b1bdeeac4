"""IDs in the host of the gateway's URLs: no create returns a URL whose host no DNS can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import Cluster
from tests.contract.gateway import NS, gateway, services
from tests.contract.service import URL, StartProvisioner, create

pytestmark = pytest.mark.usefixtures("without_reaper")

# 14 characters beside the ID, of 63 that a part of a host may have.
HOST = "http://my-preview-of-{sandbox_id}.example:8003"
LONGEST, TOO_LONG = "a" * 49, "a" * 50


async def test_an_id_that_is_too_long_for_the_gateways_host_is_422_and_makes_nothing(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(**gateway(tmp_path) | {"SANDBOX_GATEWAY_URL": HOST})
    made = await create(provisioner, LONGEST)
    assert made["sandbox_url"].startswith(f"http://my-preview-of-{LONGEST}.example:8003/s/{LONGEST}/")
    response = await provisioner.post(URL, json={"sandbox_id": TOO_LONG})
    assert response.status == 422
    (field,) = (await response.json())["detail"]
    assert (field["loc"], field["msg"]) == (
        ["body", "sandbox_id"],
        "This ID is too long for the URLs of the gateway: a part of the host has 64 characters, and DNS allows 63",
    )
    assert [pod["metadata"]["name"] for pod in cluster.objects("Pod", NS)] == [f"sandbox-{LONGEST}"]


async def test_a_sandbox_with_a_service_is_kept_whatever_its_id(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    before = await start_provisioner()
    made = await create(before, TOO_LONG)
    await before.client.close()
    provisioner = await start_provisioner(**gateway(tmp_path) | {"SANDBOX_GATEWAY_URL": HOST})
    assert (await create(provisioner, TOO_LONG))["sandbox_url"] == made["sandbox_url"]
    assert services(cluster) == {TOO_LONG}
