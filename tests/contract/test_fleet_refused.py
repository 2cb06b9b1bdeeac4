"""Several clusters behind one API: one that refuses the credentials, and a Pod that could not be withdrawn at once."""

from __future__ import annotations

import pytest
import yaml

from devcluster import Cluster
from sandboxes.errors import ClusterUnavailable
from sandboxes.models.requests import CreateRequest
from tests.audit import CLUSTERS
from tests.contract.fleet import StartReplica, answered, fleet_of, id_of, pods
from tests.contract.service import URL, create
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deadlines(clusters_answer=2.0, settle_pause=0.2, fleet_probe_most=0.5),
    pytest.mark.usefixtures("without_reaper"),
    pytest.mark.role(CLUSTERS),
]


async def test_a_cluster_that_refuses_the_credentials_is_named_and_the_others_go_on(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    one = await start_replica()
    for name in ("east", "west"):
        await create(one, id_of(name))
    kubeconfig = clusters["west"].kubeconfig
    good = kubeconfig.read_text()
    config = yaml.safe_load(good)
    config["users"][0]["user"]["token"] = "refused"
    kubeconfig.write_text(yaml.safe_dump(config))
    two = await start_replica()
    assert (await create(two, id_of("east", 1)))["cluster"] == "east"
    assert (await answered(two, id_of("east")))[0] == 200
    for method in ("GET", "DELETE"):
        response = await two.client.request(method, f"{URL}/{id_of('west')}")
        assert (response.status, "'west'" in (await response.json())["detail"]) == (503, True)
    for wish in ({}, {"cluster": "east"}):
        response = await two.post(URL, json={"sandbox_id": id_of("west", 1), **wish})
        assert (response.status, "'west'" in (await response.json())["detail"]) == (503, True)
    assert fleet_of(two).clusters["west"].breaker.is_open
    # A marker is made for it, so what is there is asked.
    response = await two.post(URL, json={"sandbox_id": id_of("east", 2), "cluster": "west"})
    assert response.status == 429
    kubeconfig.write_text(good)
    await until(lambda: not fleet_of(two).clusters["west"].breaker.is_open)
    assert (await answered(two, id_of("west")))[0] == 200


async def test_a_pod_that_can_not_be_withdrawn_at_once_is_withdrawn_later(
    clusters: dict[str, Cluster], start_replica: StartReplica
) -> None:
    east = fleet_of(await start_replica()).clusters["east"]
    made, _ = await east.make(CreateRequest(sandbox_id="a"), "")
    clusters["east"].faults.refuse()
    with pytest.raises(ClusterUnavailable):
        await east.withdraw("a", made.uid)
    assert pods(clusters["east"]) == {"a": made.uid}
    clusters["east"].faults.clear()
    await until(lambda: pods(clusters["east"]) == {})
