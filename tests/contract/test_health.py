"""/readyz with a real kubectl: an unreachable cluster, a missing kubectl, ended watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.contract.service import KUBECTL, Provisioner, StartProvisioner, create, until
from tests.contract.views import end_watches

READY = {"serving": "ok", "kubectl": "ok", "api_server": "ok", "rights": "ok", "live_view": "ok"}


# Without cached results of /readyz.
pytestmark = [pytest.mark.deadlines(ready_believed=0.0), pytest.mark.starts_in_full]


async def readiness(service: Provisioner) -> tuple[int, dict[str, Any]]:
    response = await service.get("/readyz")
    return response.status, (await response.json())["checks"]


async def test_readyz_is_503_until_a_cluster_down_at_the_start_is_up(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    cluster.faults.refuse()
    service = await start_provisioner()
    assert (await service.get("/health")).status == 200
    assert (await service.get("/livez")).status == 200
    status, checks = await readiness(service)
    assert status == 503
    assert checks == {
        "serving": "ok",
        "kubectl": "ok",
        "api_server": "The cluster can't be reached",
        "rights": "ok",
        "live_view": "The live view is not up to date with the cluster",
    }
    cluster.faults.clear()

    async def ready() -> bool:
        return await readiness(service) == (200, READY)

    await until(ready)
    await create(service)


async def test_readyz_is_503_when_the_cluster_becomes_unreachable(provisioner: Provisioner, cluster: Cluster) -> None:
    assert await readiness(provisioner) == (200, READY)
    cluster.faults.refuse()
    status, checks = await readiness(provisioner)
    assert (status, checks["api_server"]) == (503, "The cluster can't be reached")


@pytest.mark.slow
async def test_readyz_is_503_when_the_api_server_returns_500(provisioner: Provisioner, cluster: Cluster) -> None:
    cluster.faults.answer(500)
    status, checks = await readiness(provisioner)
    assert status == 503
    assert checks["api_server"].startswith("The cluster")
    assert "devcluster" not in str(checks)


async def test_readyz_is_503_when_kubectl_is_missing(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    binary = tmp_path / "own-kubectl"
    binary.symlink_to(KUBECTL)
    service = await start_provisioner(KUBECTL=str(binary))
    assert await readiness(service) == (200, READY)
    binary.unlink()
    status, checks = await readiness(service)
    assert status == 503
    assert checks["kubectl"] == "The provisioner can't run kubectl"
    assert checks["api_server"] == "It can't be asked without kubectl"
    assert str(tmp_path) not in str(checks)


async def test_readyz_stays_200_when_the_server_ends_the_watches(provisioner: Provisioner, cluster: Cluster) -> None:
    assert await readiness(provisioner) == (200, READY)
    await end_watches(cluster)
    await until(lambda: not provisioner.view.is_fresh)
    assert await readiness(provisioner) == (200, READY)


async def test_readyz_has_no_live_view_check_without_a_live_view(start_provisioner: StartProvisioner) -> None:
    service = await start_provisioner(LIVE_VIEW="false")
    assert await readiness(service) == (200, {"serving": "ok", "kubectl": "ok", "api_server": "ok", "rights": "ok"})


async def test_a_role_that_allows_no_create_makes_it_unready_until_it_does(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    cluster.make_namespace("deer-flow")
    rule = {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["delete", "get", "list", "watch"]}
    cluster.authorization.restrict("deer-flow", [rule])
    service = await start_provisioner()
    said = "The provisioner lacks rights that a create needs: create on pods; create on services"
    assert await readiness(service) == (503, {**READY, "rights": said})
    cluster.authorization.restrict("deer-flow", [{**rule, "verbs": ["create", *rule["verbs"]]}])
    assert await readiness(service) == (200, READY)


async def test_rights_that_a_webhook_grants_are_not_missed(
    cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    cluster.make_namespace("deer-flow")
    verbs = ["create", "delete", "get", "list", "watch"]
    rule = {"apiGroups": [""], "resources": ["pods", "services"], "verbs": verbs}
    cluster.authorization.restrict("deer-flow", by_webhook=[rule])
    service = await start_provisioner()
    assert await readiness(service) == (200, READY)
    await create(service)
