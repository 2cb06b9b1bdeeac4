"""Two processes at once where one has not noticed yet that the right to patch was granted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.lives import SERVICE
from tests.contract.service import Provisioner, StartProvisioner, create, until
from tests.contract.test_without_patch import NS, grant_patch, rules
from tests.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("without_reaper")


class Gate:
    """Holds a process's next call of one kind until it is opened."""

    def __init__(self, provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        kubectl = provisioner.client.app[SANDBOX_SERVICE].cluster.kubectl
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        call = getattr(kubectl, name)

        async def held(objects: Any, **options: Any) -> Any:
            first = objects[0] if isinstance(objects, list) else objects
            if first["kind"] == "Service":
                self.reached.set()
                await self._open.wait()
            return await call(objects, **options)

        monkeypatch.setattr(kubectl, name, held)

    def open(self) -> None:
        self._open.set()


async def test_a_service_by_which_a_process_with_patch_completed_a_sandbox_stays(
    start_provisioner: StartProvisioner, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.make_namespace(NS)
    cluster.authorization.restrict(NS, rules())
    maker, other = [await start_provisioner() for _ in range(2)]
    await create(maker, "b")
    grant_patch(cluster)
    gate = Gate(maker, monkeypatch, "create")
    making = asyncio.create_task(create(maker, user_id="u", thread_id="t"))
    await gate.reached.wait()
    returned = await create(other, user_id="u", thread_id="t")
    before = cluster.get(*SERVICE)
    gate.open()
    made = await making
    after = cluster.get(*SERVICE)
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert made["sandbox_url"] == returned["sandbox_url"]


async def test_a_service_that_is_left_over_is_not_replaced_after_another_process_returned_it(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, other = [await start_provisioner() for _ in range(2)]
    await create(other, user_id="v", thread_id="t", labels={"of": "v"})
    await kubectl("delete", "pod/sandbox-a", "-n", NS, "--grace-period=0", "--force")
    await until(lambda: all(one.view.sandbox("a")[0] is None for one in (maker, other)))
    cluster.authorization.restrict(NS, rules())
    await create(maker, "b")
    grant_patch(cluster)
    gate = Gate(maker, monkeypatch, "delete_exactly")
    making = asyncio.create_task(create(maker, user_id="u", thread_id="t", labels={"of": "u"}))
    await gate.reached.wait()
    returned = await create(other, user_id="u", thread_id="t", labels={"of": "u"})
    gate.open()
    made = await making
    assert made["sandbox_url"] == returned["sandbox_url"]
    service = cluster.get(*SERVICE)
    assert service is not None
    assert returned["sandbox_url"].endswith(f":{service['spec']['ports'][0]['nodePort']}")
    assert service["metadata"]["labels"]["of"] == "u"
