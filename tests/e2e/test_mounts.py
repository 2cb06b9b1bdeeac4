"""Extra mounts inside other extra mounts, from folders of the node."""

from __future__ import annotations

import json
import posixpath
import secrets

import pytest

from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL
from tests.e2e.test_diagnostics import diagnostics_of

CONFIG = "/mnt/integrations/lark-cli/config"
LOCKS = f"{CONFIG}/locks"
PARENT = "/var/tmp"


@pytest.fixture
def base() -> str:
    """Return a folder for the node, which does not exist yet."""
    return f"{PARENT}/sandbox-e2e-{secrets.token_hex(4)}"


def delete_folder(target: Target, node: str, path: str) -> None:
    """Delete a folder below PARENT on a node of a real cluster, by a Pod."""
    if not target.is_real:
        return
    name = posixpath.basename(path)
    container = {
        "name": "delete",
        "image": target.image,
        "command": ["rm", "-rf", f"/node/{name}"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "node", "mountPath": "/node"}],
    }
    volume = {"name": "node", "hostPath": {"path": PARENT, "type": "Directory"}}
    spec = {"nodeName": node, "restartPolicy": "OnFailure", "containers": [container], "volumes": [volume]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    target.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    target.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=100s")


def mount(host_path: str, container_path: str, *, read_only: bool = False) -> dict[str, object]:
    return {"host_path": host_path, "container_path": container_path, "read_only": read_only}


@pytest.mark.slow
def test_a_mount_inside_another_starts_in_any_order_of_the_request(
    start_service: StartService, target: Target, sandbox_id: str, base: str
) -> None:
    service = start_service(DEER_FLOW_HOST_BASE_DIR=base)
    mounts = [mount(f"{base}/locks", LOCKS), mount(f"{base}/config", CONFIG)]
    service.create(sandbox_id, extra_mounts=mounts)
    wait_for(lambda: service.get(sandbox_id).body["ready"], "the sandbox is ready")
    (pod,) = (one for one in target.objects(sandbox_id) if one["kind"] == "Pod")
    mounted = [one["mountPath"] for one in pod["spec"]["containers"][0]["volumeMounts"]]
    assert [path for path in mounted if path in {CONFIG, LOCKS}] == [CONFIG, LOCKS]
    assert service.delete(sandbox_id).status == 200
    wait_for(lambda: not target.objects(sandbox_id), "the sandbox's objects are deleted")
    delete_folder(target, pod["spec"]["nodeName"], base)


@pytest.mark.slow
def test_a_read_only_mount_without_the_inner_mounts_folder_is_400(
    start_service: StartService, target: Target, sandbox_id: str, base: str
) -> None:
    service = start_service(DEER_FLOW_HOST_BASE_DIR=base)
    mounts = [mount(f"{base}/config", CONFIG, read_only=True), mount(f"{base}/locks", LOCKS)]
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id, "extra_mounts": mounts})
    assert answer.status == 400
    assert f"{LOCKS} below the read-only {CONFIG}, whose host path does not contain it" in answer.body["detail"]
    assert target.objects(sandbox_id) == []


def test_read_only_folders_that_the_node_lacks_are_diagnosed(
    start_service: StartService, target: Target, sandbox_id: str, base: str
) -> None:
    target.needs("missing folders of a node")
    service = start_service(DEER_FLOW_HOST_BASE_DIR=base)
    inner = mount(f"{base}/config/locks", LOCKS, read_only=True)
    service.create(sandbox_id, extra_mounts=[mount(f"{base}/config", CONFIG, read_only=True), inner])
    wait_for(lambda: diagnostics_of(service, sandbox_id)["reason"] == "FailedMount", "the reason is FailedMount")
    summary = diagnostics_of(service, sandbox_id)["summary"]
    assert summary.startswith(f"A volume can't be mounted: {base}/config")
