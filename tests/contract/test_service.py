"""The service over real HTTP, with a real kubectl on devcluster."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import aiohttp
import kmock
import pytest

from devcluster import Cluster
from devcluster.requests import body_of
from sandboxes.cli import main
from tests.conftest import ROOT
from tests.contract.faults import refuse_next
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl, pod, service
from tests.marker import look_at

# The annotation that differs between two applies of the same sandbox.
VOLATILE = "provisioner/applied-at"


async def responds(url: str) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"{url}/v1/sandbox") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False


async def test_a_sandbox_is_created_served_listed_and_deleted(provisioner: Provisioner, cluster: Cluster) -> None:
    made = await create(provisioner)
    assert made["status"] in {"Pending", "Running"}
    await until(lambda: responds(made["sandbox_url"]))

    async def ready() -> bool:
        return bool((await (await provisioner.get(f"{URL}/a")).json())["ready"])

    await until(ready)
    sandbox = await (await provisioner.get(f"{URL}/a")).json()
    assert sandbox["status"] == "Running"
    assert sandbox["sandbox_url"] == made["sandbox_url"]
    assert await (await provisioner.get(URL)).json() == {"sandboxes": [sandbox], "count": 1}

    assert (await provisioner.delete(f"{URL}/a")).status == 200
    assert (await provisioner.get(f"{URL}/a")).status == 404
    assert (await (await provisioner.get(URL)).json())["count"] == 0

    async def is_deleted() -> bool:
        return not cluster.objects("Pod") and not cluster.objects("Service")

    await until(is_deleted)
    assert not await responds(made["sandbox_url"])


@pytest.mark.starts_in_full
async def test_a_create_succeeds_in_a_new_namespace(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    provisioner = await start_provisioner(K8S_NAMESPACE="brand-new")
    answer = await create(provisioner)
    assert answer["sandbox_id"] == "a"
    assert cluster.get("Pod", "brand-new", "sandbox-a")


async def test_the_pod_and_service_have_the_documented_fields(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(
        SKILLS_HOST_PATH="/skills", THREADS_HOST_PATH="/threads", DEER_FLOW_HOST_BASE_DIR="/base"
    )
    mounts = [{"host_path": "/base/x", "container_path": "/mnt/acp-workspace", "read_only": True}]
    await create(provisioner, thread_id="T", user_id="U", extra_mounts=mounts)
    pod = cluster.get("Pod", "deer-flow", "sandbox-a")
    svc = cluster.get("Service", "deer-flow", "sandbox-a-svc")
    assert pod is not None
    assert svc is not None
    for obj in (pod, svc):
        assert obj["metadata"]["labels"] == {
            "app": "deer-flow-sandbox",
            "sandbox-id": "a",
            "app.kubernetes.io/name": "deer-flow",
            "app.kubernetes.io/component": "sandbox",
            "app.kubernetes.io/managed-by": "sandbox-provisioner",
        }
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["user-data", "skills", "extra-0"]
    assert svc["spec"]["publishNotReadyAddresses"] is True
    assert svc["spec"]["ports"][0]["nodePort"]


async def test_manually_applied_manifests_are_found_served_and_deleted(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    result = await kubectl("apply", "--server-side", "-n", "deer-flow", "-f", str(ROOT / "manifests" / "sandbox"))
    assert result.rc == 0, result.stderr
    pod = cluster.get("Pod", "deer-flow", "sandbox-example")
    assert pod is not None
    assert pod["spec"]["volumes"] == [{"name": "user-data", "emptyDir": {}}]

    answer = await (await provisioner.get(f"{URL}/example")).json()
    assert answer["sandbox_id"] == "example"
    await until(lambda: responds(answer["sandbox_url"]))
    assert (await provisioner.delete(f"{URL}/example")).status == 200
    assert (await provisioner.get(f"{URL}/example")).status == 404


def render(*arguments: str) -> str:
    """Run `provisioner.py render` with the environment of the service that the test started last."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main(["render", *arguments]) == 0
    look_at("stdout of render", stdout.getvalue().encode())
    return stdout.getvalue()


def without_volatile(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for obj in objects:
        assert obj["metadata"]["annotations"].pop(VOLATILE)
    return objects


async def test_render_prints_exactly_what_the_service_applies(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads", SKILLS_PVC_NAME="skills")
    await create(provisioner, "a", thread_id="t", user_id="u")
    applied = [
        body_of(request)
        for request in cluster.kmock.requests
        if request.method is kmock.method.PATCH and "/sandbox-a" in request.url.path
    ]
    printed = json.loads(render("--sandbox-id", "a", "--thread-id", "t", "--user-id", "u"))
    assert printed["kind"] == "List"
    assert without_volatile(printed["items"]) == without_volatile(applied)


async def test_render_prints_a_templates_extra_objects_before_the_pod(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    printed = render("--sandbox-id", "a", "--thread-id", "t", "--template", "persistent")
    assert [obj["kind"] for obj in json.loads(printed)["items"]] == ["PersistentVolumeClaim", "Pod", "Service"]
    result = await kubectl("apply", "--server-side", "-f", "-", stdin=printed)
    assert result.rc == 0, result.stderr
    await provisioner.delete(f"{URL}/a")
    claim = cluster.get("PersistentVolumeClaim", "deer-flow", "sandbox-a-data")
    assert claim is not None
    await create(provisioner, "a", thread_id="t", template="persistent")
    after = cluster.get("PersistentVolumeClaim", "deer-flow", "sandbox-a-data")
    assert after is not None
    assert after["metadata"]["uid"] == claim["metadata"]["uid"]


async def test_applying_rendered_manifests_gives_the_same_sandbox(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    printed = render("--sandbox-id", "a", "--thread-id", "t")
    result = await kubectl("apply", "--server-side", "-f", "-", stdin=printed)
    assert result.rc == 0, result.stderr
    by_hand = cluster.get("Pod", "deer-flow", "sandbox-a")

    answer = await create(provisioner, "a", thread_id="t")
    assert answer["sandbox_id"] == "a"
    after = cluster.get("Pod", "deer-flow", "sandbox-a")
    assert by_hand is not None
    assert after is not None
    assert after["metadata"]["uid"] == by_hand["metadata"]["uid"]
    annotations = after["metadata"]["annotations"]
    # The Pod was returned to a caller, so its creator must not roll it back.
    assert annotations.pop("provisioner/confirmed-at")
    assert annotations == by_hand["metadata"]["annotations"]
    assert after["spec"]["containers"] == by_hand["spec"]["containers"]


async def test_a_server_that_starts_in_40_seconds_is_not_restarted(
    fast_cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    fast_cluster.server_takes(40)
    provisioner = await start_provisioner(cluster=fast_cluster)
    await create(provisioner)

    def container_status() -> dict[str, Any]:
        pod = fast_cluster.get("Pod", "deer-flow", "sandbox-a")
        assert pod is not None
        statuses = pod["status"].get("containerStatuses") or [{}]
        return dict(statuses[0])

    async def ready() -> bool:
        return bool(container_status().get("ready"))

    await until(ready)
    assert container_status()["restartCount"] == 0


async def test_a_server_slower_than_the_startup_probe_is_restarted(
    fast_cluster: Cluster, start_provisioner: StartProvisioner
) -> None:
    fast_cluster.server_takes(40)
    provisioner = await start_provisioner(cluster=fast_cluster, SANDBOX_STARTUP_FAILURE_THRESHOLD="20")
    await create(provisioner)

    async def restarted() -> bool:
        pod = fast_cluster.get("Pod", "deer-flow", "sandbox-a")
        assert pod is not None
        return any(one["restartCount"] > 0 for one in pod["status"].get("containerStatuses") or [])

    await until(restarted)


async def test_kubectls_stderr_is_logged_but_not_returned_to_the_caller(
    provisioner: Provisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded")
    response = await provisioner.post(URL, json={"sandbox_id": "a"}, headers={"X-Request-ID": "find-me"})
    assert response.status == 429
    assert response.headers["X-Request-ID"] == "find-me"
    assert "exceeded quota" not in await response.text()
    assert "exceeded quota: q, requested: pods=1" in caplog.text
    assert (await provisioner.get(f"{URL}/a")).status == 404
    assert cluster.objects("Service") == []


@pytest.mark.parametrize("live_view", ["true", pytest.param("false", marks=pytest.mark.slow)])
async def test_objects_that_only_share_a_sandboxs_name_are_not_deleted(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, live_view: str
) -> None:
    provisioner = await start_provisioner(LIVE_VIEW=live_view)
    await create(provisioner, "mine")
    # As a StatefulSet `sandbox-redis` names its Pods, and a Deployment `sandbox-provisioner` similarly.
    names = {"sandbox-id": "of-something-else", "app.kubernetes.io/name": "redis"}
    others = [pod("sandbox-redis-0", "deer-flow"), service("sandbox-redis-0", "deer-flow", selector={"run": "redis"})]
    for obj in others:
        obj["metadata"]["labels"] = names
    assert (await kubectl.apply(*others)).rc == 0
    # A sandbox whose Service belongs to others: its Pod is deleted, and the Service stays.
    stray = service("sandbox-half", "deer-flow")
    incomplete = pod("sandbox-half", "deer-flow")
    stray["metadata"]["labels"] = names
    incomplete["metadata"]["labels"] = {"app": "deer-flow-sandbox", "sandbox-id": "half"}
    assert (await kubectl.apply(incomplete, stray)).rc == 0

    for sandbox_id in ("redis-0", "half", "mine"):
        response = await provisioner.delete(f"{URL}/{sandbox_id}")
        assert (response.status, await response.json()) == (200, {"ok": True, "sandbox_id": sandbox_id})
        assert (await provisioner.get(f"{URL}/{sandbox_id}")).status == 404

    def others_service() -> dict[str, Any]:
        (found,) = (one for one in cluster.objects("Service", "deer-flow") if "redis" in one["metadata"]["name"])
        spec: dict[str, Any] = found["spec"]
        return spec

    before = others_service()
    response = await provisioner.post(URL, json={"sandbox_id": "redis-0"})
    assert others_service() == before
    assert response.status == 409
    assert (await response.json())["detail"] == "An object that is not a sandbox has the name of sandbox 'redis-0'"

    def left(kind: str) -> set[str]:
        return {obj["metadata"]["name"] for obj in cluster.objects(kind, "deer-flow")}

    await until(lambda: left("Pod") == {"sandbox-redis-0"})
    assert left("Service") == {"sandbox-redis-0-svc", "sandbox-half-svc"}
