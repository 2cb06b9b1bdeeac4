"""The options of a create, applied and read back by a real kubectl."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.kubectl import Kubectl

ALL = "annotations,env,image,labels,resources"


async def read(kubectl: Kubectl, kind: str, name: str) -> Any:
    return (await kubectl("get", kind, name, "-n", "deer-flow", "-o", "json")).json


async def test_the_pod_has_exactly_the_requested_options(start_provisioner: StartProvisioner, kubectl: Kubectl) -> None:
    provisioner = await start_provisioner(ALLOW_FIELDS=ALL)
    await create(provisioner, "plain")
    fields: dict[str, Any] = {
        "image": "registry.local/mine:1",
        "env": {"GREETING": "ä 漢 🙂\n\"'", "PRICE": "$(GREETING) $5", "EMPTY": ""},
        "resources": {"requests": {"memory": "128Mi"}, "limits": {"cpu": "50m", "ephemeral-storage": 1e9}},
        "labels": {"team": "x", "example.com/tier": ""},
        "annotations": {"note": "any\ntext", "example.com/url": "https://x/?a=$(b)"},
    }
    await create(provisioner, "asked", **fields)

    plain, asked = await read(kubectl, "pod", "sandbox-plain"), await read(kubectl, "pod", "sandbox-asked")
    container = asked["spec"]["containers"][0]
    *env, revision = container["env"]
    assert container["image"] == "registry.local/mine:1"
    # kubectl may omit an empty value.
    assert [(variable["name"], variable.get("value", "")) for variable in env] == [
        ("GREETING", "ä 漢 🙂\n\"'"),
        ("PRICE", "$$(GREETING) $$5"),
        ("EMPTY", ""),
    ]
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "500Mi"},
        "limits": {"cpu": "50m", "memory": "1Gi", "ephemeral-storage": "1G"},
    }
    assert revision["name"] == "SANDBOX_REVISION"
    assert revision != plain["spec"]["containers"][0]["env"][-1]

    ours = {**plain["metadata"]["labels"], "sandbox-id": "asked"}
    assert asked["metadata"]["labels"] == {**ours, **fields["labels"]}
    service = await read(kubectl, "service", "sandbox-asked-svc")
    assert service["metadata"]["labels"] == {**ours, **fields["labels"]}
    assert service["spec"]["selector"] == {"sandbox-id": "asked"}
    assert set(service["metadata"]["annotations"]) == {"provisioner/applied-at"}
    annotations = asked["metadata"]["annotations"]
    assert annotations.keys() - fields["annotations"].keys() == plain["metadata"]["annotations"].keys()
    assert {key: annotations[key] for key in fields["annotations"]} == fields["annotations"]

    # Everything else equals a Pod without options.
    for name in ("image", "env", "resources"):
        del container[name], plain["spec"]["containers"][0][name]
    for pod in (asked, plain):
        for field in ("nodeName", "nodeSelector"):
            pod["spec"].pop(field, None)
    # The default image has no seccomp profile; other images have the runtime's.
    assert plain["spec"].pop("securityContext") == {}
    assert asked["spec"].pop("securityContext") == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert asked["spec"] == plain["spec"]


async def test_a_rejected_concurrent_owner_leaves_no_label_on_the_service(
    start_provisioner: StartProvisioner, kubectl: Kubectl
) -> None:
    first, second = await start_provisioner(), await start_provisioner()

    async def send(provisioner: Provisioner, team: str) -> int:
        fields = {"sandbox_id": "a", "thread_id": team, "labels": {"team": team, f"only-{team}": ""}}
        return (await provisioner.post(URL, json=fields)).status

    statuses = await asyncio.gather(send(first, "x"), send(second, "y"))
    assert sorted(statuses) == [200, 409]
    pod, service = await read(kubectl, "pod", "sandbox-a"), await read(kubectl, "service", "sandbox-a-svc")
    assert pod["metadata"]["labels"]["team"] == "xy"[statuses.index(200)]
    assert service["metadata"]["labels"] == pod["metadata"]["labels"]
